-- breaks_running_version: sites
-- breaks_running_version: sites.path
-- breaks_running_version: hits.path
ALTER TABLE sites RENAME TO pages;
ALTER TABLE pages RENAME COLUMN path TO url;
ALTER TABLE hits RENAME COLUMN path TO link;
ALTER TABLE hits ADD COLUMN weight INTEGER NOT NULL DEFAULT 1;
