-- rebuild: notes
-- changes_values: notes.profile_id
-- adds_check: notes(profile_id)
CREATE TABLE __new_notes (
  id INTEGER PRIMARY KEY,
  profile_id INTEGER NOT NULL DEFAULT 1 REFERENCES profiles(id)
);
INSERT INTO __new_notes (id, profile_id) SELECT id, coalesce(profile_id, 1) FROM notes;
DROP TABLE notes;
ALTER TABLE __new_notes RENAME TO notes;
