CREATE TABLE parts (id INTEGER PRIMARY KEY, name TEXT, code TEXT AS (upper(name)) STORED, UNIQUE (code));
