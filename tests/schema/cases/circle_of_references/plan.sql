-- rebuild: a
-- adds_check: a(b)
-- rebuild: b
-- adds_check: b(a)
CREATE TABLE __new_b (
  id INTEGER PRIMARY KEY,
  a INTEGER REFERENCES a(id)
);
INSERT INTO __new_b (id, a) SELECT id, a FROM b;
DROP TABLE b;
ALTER TABLE __new_b RENAME TO b;
CREATE TABLE __new_a (
  id INTEGER PRIMARY KEY,
  b INTEGER REFERENCES b(id)
);
INSERT INTO __new_a (id, b) SELECT id, b FROM a;
DROP TABLE a;
ALTER TABLE __new_a RENAME TO a;
