-- rename: people_rows=people
-- rename: pets_rows=pets
CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE pets (id INTEGER PRIMARY KEY, name TEXT);
CREATE INDEX pets_by_name ON pets (name);
