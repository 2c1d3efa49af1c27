"""Read a schema from SQL text, as SQLite understands it."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from local_mcp_gateway.schema import Schema, inspect


def schema_of(sql: str) -> Schema:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(sql)
        return inspect(connection)
