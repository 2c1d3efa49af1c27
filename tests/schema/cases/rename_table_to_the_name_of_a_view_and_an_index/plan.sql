-- breaks_running_version: people_rows
-- breaks_running_version: pets_rows
-- breaks_running_version: people
DROP VIEW people;
DROP INDEX pets;
ALTER TABLE people_rows RENAME TO people;
ALTER TABLE pets_rows RENAME TO pets;
CREATE INDEX pets_by_name ON pets (name);
