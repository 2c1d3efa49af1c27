"""The migration engine: a folder and a ledger in, a database at its newest schema out."""
