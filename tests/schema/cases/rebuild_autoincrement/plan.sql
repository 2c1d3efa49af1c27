-- rebuild: t
-- adds_unique: t(a)
CREATE TABLE __new_t (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  a TEXT UNIQUE
);
INSERT INTO sqlite_sequence (name, seq) SELECT '__new_t', seq FROM sqlite_sequence WHERE name = 't';
INSERT INTO __new_t (id, a) SELECT id, a FROM t;
DROP TABLE t;
ALTER TABLE __new_t RENAME TO t;
