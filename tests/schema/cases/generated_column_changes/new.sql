CREATE TABLE t (
  a INTEGER,
  b INTEGER AS (a + 2)
);
