-- rebuild: t
CREATE TABLE __new_t (
  a INTEGER,
  b INTEGER
);
INSERT INTO __new_t (rowid, a, b) SELECT rowid, a, b FROM t;
DROP TABLE t;
ALTER TABLE __new_t RENAME TO t;
