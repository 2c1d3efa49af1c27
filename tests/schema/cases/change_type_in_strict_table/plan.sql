-- rebuild: files
-- narrows_type: files.name
-- narrows_type: files.content
-- narrows_type: files.size
-- narrows_type: files.tag
CREATE TABLE __new_files (
  id INTEGER PRIMARY KEY,
  name BLOB NOT NULL,
  content TEXT,
  size BLOB,
  tag BLOB
) STRICT;
INSERT INTO __new_files (id, name, content, size, tag) SELECT id, CAST(name AS BLOB), CAST(content AS TEXT), CAST(size AS BLOB), CAST(tag AS BLOB) FROM files;
DROP TABLE files;
ALTER TABLE __new_files RENAME TO files;
