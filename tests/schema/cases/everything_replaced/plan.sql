-- deletes_data: a.x
-- breaks_running_version: a.x
ALTER TABLE a ADD COLUMN y TEXT;
ALTER TABLE a DROP COLUMN x;
