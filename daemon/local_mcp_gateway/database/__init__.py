"""SQLite on one machine: connections, the lock beside the file, and whether the file is sound."""
