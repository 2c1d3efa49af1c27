"""Read and write the ledger of applied migrations: Drizzle's table, and our history beside it.

`__drizzle_migrations` has exactly Drizzle's own format, so that either tool can take over; rows that
Drizzle wrote stay as they are. A ledger of Drizzle 1.x has two more columns (name, applied_at), which
are read, and filled where they exist. What only we know is in `__guard_history`; its rows are never
changed or removed, and a further row corrects a mistake.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from local_mcp_gateway.formats import iso

if TYPE_CHECKING:
    from local_mcp_gateway.migrate.folder import Migration


def record_fingerprint(connection: sqlite3.Connection, fingerprint: str) -> None:
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
    """Return SQLite's own counter of schema changes, made by anyone; no schema is parsed for it."""
    return int(connection.execute("PRAGMA schema_version").fetchone()[0])


def last_fingerprint(connection: sqlite3.Connection) -> str | None:
    """Return the schema's fingerprint after the last change that we made, if we made one."""
    return last_recorded(connection)[0]


def recorded_fingerprint(connection: sqlite3.Connection) -> str | None:
    """Return the fingerprint of the current schema, if nobody changed it since we recorded it.

    None if that is unknown: then the schema has to be inspected.
    """
    fingerprint, version = last_recorded(connection)
    return fingerprint if version == schema_version(connection) else None


def last_recorded(connection: sqlite3.Connection) -> tuple[str | None, int | None]:
    """Return fingerprint and counter as our newest row has them."""
    try:
        row = connection.execute(
            "SELECT fingerprint, schema_version FROM __guard_history ORDER BY id DESC LIMIT 1"
        ).fetchone()
    except sqlite3.OperationalError:  # no history, or one of an early version
        return None, None
    return row or (None, None)


LEDGER = "__drizzle_migrations"
HISTORY = "__guard_history"
GUARD_TABLES = frozenset({LEDGER, HISTORY})

CREATED_AT = "CAST(coalesce(created_at, 0) AS INTEGER)"
"""The time of a ledger row, whose column has no type: a tool may have left it out."""

_CREATE_LEDGER = """
			CREATE TABLE IF NOT EXISTS "__drizzle_migrations" (
				id SERIAL PRIMARY KEY,
				hash text NOT NULL,
				created_at numeric
			)
		"""
_CREATE_STAMPED_LEDGER = """
CREATE TABLE IF NOT EXISTS "__drizzle_migrations" (
	id INTEGER PRIMARY KEY,
	hash text NOT NULL,
	created_at numeric,
	name text,
	applied_at TEXT
)"""
_CREATE_HISTORY = """
CREATE TABLE IF NOT EXISTS __guard_history (
    id INTEGER PRIMARY KEY,
    event TEXT NOT NULL,
    tag TEXT,
    hash TEXT,
    created_at INTEGER,
    applied_at TEXT NOT NULL,
    duration_ms REAL,
    backup TEXT,
    program_version TEXT,
    fingerprint TEXT,
    previous_hash TEXT,
    schema_version INTEGER,
    sql TEXT,
    down TEXT
)"""
INSERT_HISTORY = (
    "INSERT INTO __guard_history (event, tag, hash, created_at, applied_at, duration_ms, backup,"
    " program_version, fingerprint, previous_hash, schema_version, sql, down)"
    " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)"
)


class Applied(NamedTuple):
    """One row of the ledger, with what the history has about it."""

    hash: str
    """Text, unless another program wrote the row: then `resolve` refuses the ledger."""
    created_at: int
    tag: str | None = None
    applied_at: str | None = None
    duration_ms: float | None = None


class Provenance(NamedTuple):
    """What every row of the history says about its author."""

    program_version: str
    backup: str | None = None
    """The name of the backup from before."""


def read_ledger(connection: sqlite3.Connection, *, brief: bool = False) -> tuple[Applied, ...]:
    """Return the ledger's rows in the order in which they were written; none where there is no ledger.

    `brief` leaves out what the history knows (tag, applied_at, duration): a third of the time.
    """
    if brief:
        return _read_brief(connection)
    tables = guard_tables(connection)
    if LEDGER not in tables:
        return ()
    if HISTORY in tables:
        details = {
            (row[0], row[1]): row[2:]
            for row in connection.execute(
                "SELECT hash, created_at, tag, applied_at, duration_ms FROM __guard_history"
                " WHERE event <> 'reverted' ORDER BY id"
            )
        }
    else:
        details = {}
    extra = "name, applied_at" if _is_v1(connection) else "NULL, NULL"
    nothing = (None, None, None)
    found = []
    for digest, when, name, applied_at in connection.execute(
        f"SELECT hash, {CREATED_AT}, {extra} FROM __drizzle_migrations ORDER BY rowid"
    ):
        tag, at, spent = details.get((digest, when), nothing)
        found.append(Applied(digest, when, name or tag, at or applied_at, spent))
    return tuple(found)


def ensure_ledger(connection: sqlite3.Connection, *, stamped: bool = False) -> None:
    """Create the ledger and the history if they are missing; inside the caller's transaction.

    `stamped`: a new ledger gets the columns of Drizzle 1.x, for a folder in its format.
    """
    connection.execute(_CREATE_STAMPED_LEDGER if stamped else _CREATE_LEDGER)
    connection.execute(_CREATE_HISTORY)
    columns = {row[1] for row in connection.execute("PRAGMA table_info(__guard_history)")}
    if "schema_version" not in columns:  # of a database that an early version made
        connection.execute("ALTER TABLE __guard_history ADD COLUMN schema_version INTEGER")


def record_applied(
    connection: sqlite3.Connection,
    applied: Sequence[tuple[Migration, float | None]],
    provenance: Provenance,
    *,
    event: str = "applied",
) -> None:
    """Record migrations as applied, in order, with the milliseconds that each took if that is known.

    Inside the caller's transaction.
    """
    now = iso()
    if _is_v1(connection):
        connection.executemany(
            "INSERT INTO __drizzle_migrations (hash, created_at, name, applied_at) VALUES (?,?,?,?)",
            [(m.hash, m.when, m.tag, now) for m, _ in applied],
        )
    else:
        connection.executemany(
            "INSERT INTO __drizzle_migrations (hash, created_at) VALUES (?,?)",
            [(m.hash, m.when) for m, _ in applied],
        )
    rows = [
        history_row(event, provenance, migration, at=now, duration_ms=spent)
        for migration, spent in applied
    ]
    connection.executemany(INSERT_HISTORY, rows)


def note_event(connection: sqlite3.Connection, event: str, provenance: Provenance) -> None:
    """Append what happened to the whole database, not to one migration: restored, reset, seeded.

    The schema's last fingerprint is kept: an earlier manual change remains drift.
    """
    recorded = last_recorded(connection)
    connection.execute(INSERT_HISTORY, history_row(event, provenance, recorded=recorded))


def history_row(
    event: str,
    provenance: Provenance,
    migration: Migration | None = None,
    *,
    at: str | None = None,
    duration_ms: float | None = None,
    previous_hash: str | None = None,
    recorded: tuple[str | None, int | None] = (None, None),
) -> tuple[object, ...]:
    """Return the values for INSERT_HISTORY; `recorded` is what `last_recorded` returns."""
    about: tuple[object, ...] = (None, None, None)
    texts: tuple[object, ...] = (None, None)
    if migration is not None:
        about = (migration.tag, migration.hash, migration.when)
        texts = (migration.sql, _text(migration.down))
    fingerprint, version = recorded
    backup = provenance.backup  # named after its database, whose name need not be UTF-8
    backup = backup and backup.encode(errors="backslashreplace").decode()
    facts = (at or iso(), duration_ms, backup, provenance.program_version)
    return (event, *about, *facts, fingerprint, previous_hash, version, *texts)


def _read_brief(connection: sqlite3.Connection) -> tuple[Applied, ...]:
    try:
        rows = connection.execute(
            f"SELECT hash, {CREATED_AT}, NULL, NULL, NULL FROM __drizzle_migrations ORDER BY rowid"
        ).fetchall()
    except sqlite3.OperationalError:
        if LEDGER in guard_tables(connection):
            raise
        return ()
    return tuple(map(Applied._make, rows))


def guard_tables(connection: sqlite3.Connection) -> frozenset[str]:
    """Return which of the two tables this database has."""
    return frozenset(
        name
        for (name,) in connection.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name IN (?, ?)",
            (LEDGER, HISTORY),
        )
    )


def _is_v1(connection: sqlite3.Connection) -> bool:
    columns = {row[1] for row in connection.execute("PRAGMA table_info(__drizzle_migrations)")}
    return {"name", "applied_at"} <= columns


def _text(path: Path | None) -> str | None:
    """Return the text of the down file, for the history."""
    return path.read_bytes().decode(errors="replace") if path else None
