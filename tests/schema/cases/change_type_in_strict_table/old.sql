CREATE TABLE files (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  content BLOB,
  size INTEGER,
  tag ANY
) STRICT;
