-- rebuild: countries
-- breaks_running_version: countries.code
ALTER TABLE countries RENAME COLUMN code TO slug;
CREATE TABLE __new_countries (slug TEXT PRIMARY KEY, size TEXT);
INSERT INTO __new_countries (rowid, slug, size) SELECT rowid, slug, size FROM countries;
DROP TABLE countries;
ALTER TABLE __new_countries RENAME TO countries;
