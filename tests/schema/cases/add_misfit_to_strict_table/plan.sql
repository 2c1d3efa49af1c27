-- rebuild: t
-- narrows_type: t.n
CREATE TABLE __new_t (
  id INTEGER PRIMARY KEY,
  a TEXT,
  n INTEGER DEFAULT 'x'
) STRICT;
INSERT INTO __new_t (id, a) SELECT id, a FROM t;
DROP TABLE t;
ALTER TABLE __new_t RENAME TO t;
