"""What the schema was after our last change: its fingerprint, and SQLite's own counter of changes.

While the counter stands where we left it, nobody has changed the schema, and a start need neither
inspect it nor replay the folder. The fingerprint is one of the texts that SQLite keeps, not of the
inspected model: equal texts are equal schemas, and reading them costs a twentieth of inspecting them.
"""

from __future__ import annotations

import sqlite3
from hashlib import sha256


def seal(connection: sqlite3.Connection, fingerprint: str) -> None:
    """Complete the newest row with the schema's fingerprint, which is known only after it.

    Inside the transaction that wrote the row; a committed row is never changed.
    """
    connection.execute(
        "UPDATE __guard_history SET fingerprint = ?, schema_version = ?"
        " WHERE id = (SELECT max(id) FROM __guard_history)",
        (fingerprint, schema_version(connection)),
    )


def text_fingerprint(connection: sqlite3.Connection) -> str:
    """Return the sha256, in hex, of every text in the schema but ours and SQLite's own.

    Uncommitted changes count. Where two differ the schemas may still mean the same: `schema.compare`.
    """
    rows = connection.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE sql IS NOT NULL"
        " AND tbl_name NOT IN ('__drizzle_migrations', '__guard_history')"
        " AND tbl_name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY type, name"
    )
    texts = "\1".join(map("\0".join, rows))
    return sha256(texts.encode("utf-8", "surrogatepass")).hexdigest()


def schema_version(connection: sqlite3.Connection) -> int:
    """Return SQLite's own counter of schema changes, by whomever; no schema is parsed for it."""
    return int(connection.execute("PRAGMA schema_version").fetchone()[0])


def last_fingerprint(connection: sqlite3.Connection) -> str | None:
    """Return the schema's fingerprint after the last change that we made, if we made one."""
    return last_seal(connection)[0]


def sealed_fingerprint(connection: sqlite3.Connection) -> str | None:
    """Return the fingerprint of the schema as it is now, if nobody changed it since we recorded it.

    None where that is not known: then the schema has to be inspected.
    """
    fingerprint, version = last_seal(connection)
    return fingerprint if version == schema_version(connection) else None


def last_seal(connection: sqlite3.Connection) -> tuple[str | None, int | None]:
    """Return fingerprint and counter as our newest row has them."""
    try:
        row = connection.execute(
            "SELECT fingerprint, schema_version FROM __guard_history ORDER BY id DESC LIMIT 1"
        ).fetchone()
    except sqlite3.OperationalError:  # no history, or one of an early version
        return None, None
    return row or (None, None)
