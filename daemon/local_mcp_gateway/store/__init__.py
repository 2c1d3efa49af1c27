"""The gateway's own tables: their definition, the values read from them, and the queries."""
