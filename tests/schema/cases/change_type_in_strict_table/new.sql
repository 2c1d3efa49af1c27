CREATE TABLE files (
  id INTEGER PRIMARY KEY,
  name BLOB NOT NULL,
  content TEXT,
  size BLOB,
  tag BLOB
) STRICT;
