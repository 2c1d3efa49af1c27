"""Access to a SQLite database: connections, transactions, the lock file and integrity checks."""
