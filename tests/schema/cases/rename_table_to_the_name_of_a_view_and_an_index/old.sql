CREATE TABLE people_rows (id INTEGER PRIMARY KEY, name TEXT);
CREATE VIEW people AS SELECT id, name FROM people_rows;
CREATE TABLE pets_rows (id INTEGER PRIMARY KEY, name TEXT);
CREATE INDEX pets ON pets_rows (name);
