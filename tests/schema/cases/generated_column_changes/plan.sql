-- rebuild: t
CREATE TABLE __new_t (
  a INTEGER,
  b INTEGER AS (a + 2)
);
INSERT INTO __new_t (rowid, a) SELECT rowid, a FROM t;
DROP TABLE t;
ALTER TABLE __new_t RENAME TO t;
