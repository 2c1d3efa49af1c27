CREATE TABLE profiles (
  id INTEGER PRIMARY KEY
);
CREATE TABLE notes (
  id INTEGER PRIMARY KEY,
  profile_id INTEGER REFERENCES profiles(id)
);
