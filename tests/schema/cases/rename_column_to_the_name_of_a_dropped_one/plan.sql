-- breaks_running_version: users.nick
-- deletes_data: users.name
-- breaks_running_version: users.name
-- drops_index: users_name
ALTER TABLE users RENAME COLUMN name TO __dropped_name;
ALTER TABLE users RENAME COLUMN nick TO name;
DROP INDEX users_name;
ALTER TABLE users DROP COLUMN __dropped_name;
CREATE INDEX users_name ON users (name);
