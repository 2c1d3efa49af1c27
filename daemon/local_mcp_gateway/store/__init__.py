"""The gateway's own tables: their definition, their rows as values, the queries, and encryption."""
