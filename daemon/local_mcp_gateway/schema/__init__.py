"""The schema as a value: read out of SQLite, compared, and turned into the next migration."""
