-- breaks_running_version: people
ALTER TABLE people RENAME TO users;
