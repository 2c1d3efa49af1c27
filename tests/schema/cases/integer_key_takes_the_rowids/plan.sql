-- rebuild: places
-- changes_primary_key: places
CREATE TABLE __new_places (id INTEGER PRIMARY KEY, code TEXT UNIQUE, rowid TEXT);
INSERT INTO __new_places (code, rowid, id) SELECT code, rowid, _rowid_ FROM places;
DROP TABLE places;
ALTER TABLE __new_places RENAME TO places;
