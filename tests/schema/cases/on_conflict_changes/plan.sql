-- rebuild: t
CREATE TABLE __new_t (
  a TEXT UNIQUE ON CONFLICT IGNORE
);
INSERT OR ABORT INTO __new_t (rowid, a) SELECT rowid, a FROM t;
DROP TABLE t;
ALTER TABLE __new_t RENAME TO t;
