"""The append-only history table `__guard_history`: what happened to a database, when, by which version.

It keeps the text of each applied migration (and of its down file), so that an edited file can be
compared with what really ran, and a migration can be reverted after its file is gone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from local_mcp_gateway.errors import VerificationFailed
from local_mcp_gateway.migrate.ledger import (
    CREATED_AT,
    HISTORY,
    INSERT_HISTORY,
    guard_tables,
    history_row,
)

if TYPE_CHECKING:
    import sqlite3

    from local_mcp_gateway.migrate.ledger import Provenance
    from local_mcp_gateway.migrate.resolve import AppliedMigration, Edited

# As `read_ledger` reads a time that another tool left out or wrote as text.
_ROW = f"hash = ? AND {CREATED_AT} = ?"
APPLIED_IN_DEV = "applied_in_dev"
"""What dev mode applied, dev mode may revert, also at a start."""


class Recorded(NamedTuple):
    """One row of the history, as `db history` shows it.

    `event`: applied, applied_in_dev, adopted, trusted, edit_accepted, marked_applied, renumbered or reverted; and what
    happened to the whole database: restored, reset, seeded, reindexed, rewound.
    """

    event: str
    tag: str | None
    hash: str | None
    created_at: int | None
    applied_at: str
    duration_ms: float | None
    backup: str | None
    program_version: str | None
    fingerprint: str | None
    previous_hash: str | None


def forget(
    connection: sqlite3.Connection,
    applied: AppliedMigration,
    provenance: Provenance,
    *,
    duration_ms: float | None,
) -> None:
    """Remove a reverted migration from the ledger and record it in the history."""
    taken = connection.execute(
        f"DELETE FROM __drizzle_migrations WHERE {_ROW}", (applied.hash, applied.created_at)
    )
    _require_row(taken, applied.tag)
    row = history_row("reverted", provenance, applied.migration, duration_ms=duration_ms)
    connection.execute(INSERT_HISTORY, row)


def accept(
    connection: sqlite3.Connection, edited: Edited, provenance: Provenance, *, event: str
) -> None:
    """Store an edited file's hash in the ledger, and its text and the old hash in the history."""
    row, migration = edited.row, edited.migration
    changed = connection.execute(
        f"UPDATE __drizzle_migrations SET hash = ?, created_at = ? WHERE {_ROW}",
        (migration.hash, migration.when, row.hash, row.created_at),
    )
    _require_row(changed, migration.tag)
    written = history_row(event, provenance, migration, previous_hash=row.hash)
    connection.execute(INSERT_HISTORY, written)


def _require_row(cursor: sqlite3.Cursor, tag: str) -> None:
    if cursor.rowcount < 1:
        raise VerificationFailed(
            f"The ledger's row of {tag} could not be found again.",
            hint="Another program changes __drizzle_migrations; the database is as it was.",
            tag=tag,
        )


def continue_history(
    connection: sqlite3.Connection,
    old: sqlite3.Connection,
    provenance: Provenance,
    *,
    since: int,
) -> None:
    """Insert the history of the `old` database before the rows here that follow `since`.

    An entry between them records the rewind. The caller completes the newest row.
    """
    connection.execute("DELETE FROM __guard_history WHERE id <= ?", (since,))
    connection.execute("UPDATE __guard_history SET id = -id")
    columns = [str(row[1]) for row in old.execute("PRAGMA table_info(__guard_history)")]
    last = 0
    if columns:
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        rows = old.execute(f"SELECT {names} FROM __guard_history")
        connection.executemany(f"INSERT INTO __guard_history ({names}) VALUES ({marks})", rows)
        last = last_row(old)
    said = connection.execute(INSERT_HISTORY, history_row("rewound", provenance))
    connection.execute("UPDATE __guard_history SET id = ? WHERE id = ?", (last + 1, said.lastrowid))
    connection.execute("UPDATE __guard_history SET id = ? - id WHERE id < 0", (last + 1 - since,))


def last_row(connection: sqlite3.Connection) -> int:
    """Return the number of the newest row of the history; 0 where there is none."""
    if HISTORY not in guard_tables(connection):
        return 0
    found = connection.execute("SELECT coalesce(max(id), 0) FROM __guard_history").fetchone()
    return int(found[0])


def read_history(connection: sqlite3.Connection) -> tuple[Recorded, ...]:
    """Return everything that happened to this database, oldest first."""
    if HISTORY not in guard_tables(connection):
        return ()
    return tuple(
        Recorded(*row)
        for row in connection.execute(
            "SELECT event, tag, hash, created_at, applied_at, duration_ms, backup, program_version,"
            " fingerprint, previous_hash FROM __guard_history ORDER BY id"
        )
    )


def last_text(connection: sqlite3.Connection, digest: str) -> str | None:
    """Return the text of a migration as it was applied."""
    if HISTORY not in guard_tables(connection):
        return None
    row = connection.execute(
        "SELECT sql FROM __guard_history WHERE hash = ? AND sql IS NOT NULL ORDER BY id DESC",
        (digest,),
    ).fetchone()
    return row[0] if row else None


class Kept(NamedTuple):
    """The stored texts of one migration as it was applied."""

    sql: str
    in_dev: bool


def kept_texts(connection: sqlite3.Connection) -> dict[tuple[str, int], Kept]:
    """Return the stored texts of each applied migration, by hash and time."""
    if HISTORY not in guard_tables(connection):
        return {}
    rows = connection.execute(
        "SELECT hash, created_at, sql, event FROM __guard_history"
        " WHERE sql IS NOT NULL AND event <> 'reverted' ORDER BY id"
    )
    return {(row[0], row[1]): Kept(row[2], row[3] == APPLIED_IN_DEV) for row in rows}


def applied_downs(connection: sqlite3.Connection, tags: Iterable[str]) -> dict[str, str]:
    """Return the down text that was stored with each of these migrations, by tag."""
    if HISTORY not in guard_tables(connection):
        return {}
    wanted = set(tags)
    rows = connection.execute(
        "SELECT tag, down FROM __guard_history WHERE down IS NOT NULL ORDER BY id"
    )
    return {tag: down for tag, down in rows if tag in wanted}
