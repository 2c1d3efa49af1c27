-- rebuild: tags
-- not_null_without_default: tags.name
-- breaks_running_version: tags.name
-- changes_values: tags.colour
-- adds_unique: tags(name)
CREATE TABLE __new_tags (
  name TEXT NOT NULL ON CONFLICT IGNORE UNIQUE ON CONFLICT REPLACE,
  colour TEXT NOT NULL ON CONFLICT REPLACE DEFAULT 'grey'
);
INSERT OR ABORT INTO __new_tags (rowid, name, colour) SELECT rowid, name, coalesce(colour, 'grey') FROM tags;
DROP TABLE tags;
ALTER TABLE __new_tags RENAME TO tags;
