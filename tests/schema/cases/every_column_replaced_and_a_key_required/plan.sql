-- rebuild: points
-- not_null_without_default: points.name
-- breaks_running_version: points.name
-- deletes_data: points.x
-- breaks_running_version: points.x
-- deletes_data: points.y
-- breaks_running_version: points.y
-- changes_primary_key: points
CREATE TABLE __new_points (name TEXT PRIMARY KEY, note TEXT) WITHOUT ROWID;
INSERT INTO __new_points (name) SELECT NULL FROM points;
DROP TABLE points;
ALTER TABLE __new_points RENAME TO points;
