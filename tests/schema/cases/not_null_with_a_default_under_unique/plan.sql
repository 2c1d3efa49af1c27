-- rebuild: parts
-- changes_values: parts.code
-- adds_unique: parts(code)
CREATE TABLE __new_parts (id INTEGER PRIMARY KEY, code TEXT NOT NULL DEFAULT 'none', UNIQUE (code));
INSERT INTO __new_parts (id, code) SELECT id, coalesce(code, 'none') FROM parts;
DROP TABLE parts;
ALTER TABLE __new_parts RENAME TO parts;
