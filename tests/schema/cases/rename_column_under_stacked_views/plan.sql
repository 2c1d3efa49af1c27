-- breaks_running_version: pages.title
DROP VIEW titles;
ALTER TABLE pages RENAME COLUMN title TO name;
CREATE VIEW titles AS SELECT name FROM named;
