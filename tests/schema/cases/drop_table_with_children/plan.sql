-- deletes_data: profiles
-- breaks_running_version: profiles
-- deletes_data: notes
-- breaks_running_version: notes
DROP TABLE notes;
DROP TABLE profiles;
