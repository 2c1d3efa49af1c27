"""What the schema was after our last change: its fingerprint, and SQLite's own counter of changes.

While the counter stands where we left it, nobody has changed the schema, and a start need neither
inspect it nor replay the folder.
"""

from __future__ import annotations

import sqlite3


def seal(connection: sqlite3.Connection, fingerprint: str) -> None:
    """Complete the newest row with the schema's fingerprint, which is known only after it.

    Inside the transaction that wrote the row; a committed row is never changed.
    """
    connection.execute(
        "UPDATE __guard_history SET fingerprint = ?, schema_version = ?"
        " WHERE id = (SELECT max(id) FROM __guard_history)",
        (fingerprint, schema_version(connection)),
    )


def schema_version(connection: sqlite3.Connection) -> int:
    """Return SQLite's own counter of schema changes, by whomever; no schema is parsed for it."""
    return int(connection.execute("PRAGMA schema_version").fetchone()[0])


def last_fingerprint(connection: sqlite3.Connection) -> str | None:
    """Return the schema's fingerprint after the last change that we made, if we made one."""
    return _last(connection)[0]


def sealed_fingerprint(connection: sqlite3.Connection) -> str | None:
    """Return the fingerprint of the schema as it is now, if nobody changed it since we recorded it.

    None where that is not known: then the schema has to be inspected.
    """
    fingerprint, version = _last(connection)
    return fingerprint if version == schema_version(connection) else None


def _last(connection: sqlite3.Connection) -> tuple[str | None, int | None]:
    try:
        row = connection.execute(
            "SELECT fingerprint, schema_version FROM __guard_history ORDER BY id DESC LIMIT 1"
        ).fetchone()
    except sqlite3.OperationalError:  # no history, or one of an early version
        return None, None
    return row or (None, None)
