-- rename: t.a=t.b
-- rename: t.b=t.a
CREATE TABLE t (
  id INTEGER PRIMARY KEY,
  b TEXT,
  a TEXT
);
