-- breaks_running_version: users.title
-- deletes_data: users.fax
-- breaks_running_version: users.fax
ALTER TABLE users RENAME COLUMN title TO name;
ALTER TABLE users ADD COLUMN email TEXT NOT NULL DEFAULT '';
ALTER TABLE users DROP COLUMN fax;
