-- rebuild: profiles
-- adds_check: profiles
-- rebuild: notes
-- not_null_without_default: notes.profile_id
-- breaks_running_version: notes.profile_id
CREATE TABLE __new_profiles (
  id TEXT PRIMARY KEY NOT NULL,
  CHECK (id <> '')
);
INSERT INTO __new_profiles (rowid, id) SELECT rowid, id FROM profiles;
DROP TABLE profiles;
ALTER TABLE __new_profiles RENAME TO profiles;
CREATE TABLE __new_notes (
  id INTEGER PRIMARY KEY,
  profile_id TEXT NOT NULL REFERENCES profiles(id) ON DELETE CASCADE
);
INSERT INTO __new_notes (id, profile_id) SELECT id, profile_id FROM notes;
DROP TABLE notes;
ALTER TABLE __new_notes RENAME TO notes;
