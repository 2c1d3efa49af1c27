-- rebuild: pets
-- adds_check: pets(owner)
-- deletes_data: people
-- breaks_running_version: people
CREATE TABLE owners (id INTEGER PRIMARY KEY, company TEXT);
CREATE TABLE __new_pets (id INTEGER PRIMARY KEY, owner INTEGER REFERENCES owners(id) ON DELETE CASCADE);
INSERT INTO __new_pets (id, owner) SELECT id, owner FROM pets;
DROP TABLE pets;
ALTER TABLE __new_pets RENAME TO pets;
DROP TABLE people;
