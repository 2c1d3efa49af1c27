CREATE TABLE parts (id INTEGER PRIMARY KEY, name TEXT, code TEXT AS (substr(name, 1, 9)) STORED, short TEXT AS (substr(name, 2, 9)) STORED CHECK (short <> 'x'), UNIQUE (code), UNIQUE (short));
