-- rebuild: parts
-- adds_unique: parts(code)
-- adds_unique: parts(short)
-- adds_check: parts
CREATE TABLE __new_parts (id INTEGER PRIMARY KEY, name TEXT, code TEXT AS (substr(name, 1, 9)) STORED, short TEXT AS (substr(name, 2, 9)) STORED CHECK (short <> 'x'), UNIQUE (code), UNIQUE (short));
INSERT INTO __new_parts (id, name) SELECT id, name FROM parts;
DROP TABLE parts;
ALTER TABLE __new_parts RENAME TO parts;
