"""The history of a database: what happened to it, when, by which version of the program.

The table `__guard_history` holds what Drizzle's ledger has no room for: the text of each applied migration
(and of its down file), so that an edited file can be compared with what really ran, and a migration can be
reverted after its file is gone; and the fingerprint of the schema after each change. Its rows are never
changed or removed, and a further row corrects a mistake.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from local_mcp_gateway.errors import VerificationFailed
from local_mcp_gateway.formats import iso

if TYPE_CHECKING:
    from local_mcp_gateway.migrate.folder import Migration

GUARD_TABLES = frozenset({"__drizzle_migrations", "__guard_history"})
APPLIED_IN_DEV = "applied_in_dev"
"""What dev mode applied, dev mode may revert, also at a start."""

CREATE_HISTORY = """
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
    down TEXT,
    rows_touched INTEGER,
    rehearsed_ms REAL,
    hazards TEXT
)"""
LATER_COLUMNS = {
    "schema_version": "INTEGER",
    "rows_touched": "INTEGER",
    "rehearsed_ms": "REAL",
    "hazards": "TEXT",
}
"""What a table of an earlier version may not have."""
HISTORY_COLUMNS = (
    "event, tag, hash, created_at, applied_at, duration_ms, backup, program_version, fingerprint,"
    " previous_hash, schema_version, sql, down, rows_touched, rehearsed_ms, hazards"
)
_CHANGED = (
    "Another program has changed that table; the database is unchanged. Compare it with a backup"
    " (`db backup list`), and restore that if need be."
)


class Facts(NamedTuple):
    """What is known of one migration that was applied or reverted."""

    duration_ms: float | None = None
    rows_touched: int | None = None
    """What its statements inserted, changed or deleted, without triggers and foreign-key actions."""
    rehearsed_ms: float | None = None
    """How long it took in the rehearsal; None without one."""
    hazards: tuple[str, ...] | None = None
    """The kinds of hazards that the rehearsal found; None without one."""


UNKNOWN = Facts()


class Recorded(NamedTuple):
    """One row of the history, as `db history` shows it.

    `event`: applied, applied_in_dev, adopted, trusted, edit_accepted, marked_applied, renumbered or
    reverted; and what happened to the whole database: restored, reset, seeded, reindexed, rewound, identified
    (`hash` is what tells it from others) or replicated (`hash` is the replica's transaction).
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
    rows_touched: int | None
    rehearsed_ms: float | None
    hazards: tuple[str, ...] | None


class StoredText(NamedTuple):
    """The stored text of one migration as it was applied."""

    sql: str
    in_dev: bool


class History:
    """The history of the database on this connection.

    Each write is part of the caller's transaction, says which version of the program made it, and is
    read back: VerificationFailed is raised unless it is there as written. `backup` is always the name of the
    backup from before.
    """

    def __init__(self, connection: sqlite3.Connection, *, program_version: str = "") -> None:
        self.connection = connection
        self._program_version = program_version

    # --- what happened --------------------------------------------------------------------------

    def note(self, event: str, *, backup: str | None = None) -> None:
        """Append what happened to the whole database, not to one migration: restored, reset, seeded.

        The schema's last fingerprint is kept: an earlier manual change remains drift.
        """
        self._insert(event, backup=backup, recorded=self._last_recorded())

    def replicated_before(self, tag: str) -> int | None:
        """Return the replica's transaction from before the migration was last applied, if it was noted.

        `down-TAG`: from before it was last reverted, as the backup from then is named.
        """
        reverted = tag.startswith("down-")
        events = ("reverted", "") if reverted else ("applied", "applied_in_dev")
        rows = self._history(
            "SELECT r.hash FROM __guard_history r JOIN __guard_history a"
            " ON a.backup = r.backup AND a.id > r.id"
            " WHERE r.event = 'replicated' AND a.event IN (?, ?) AND a.tag = ?"
            " ORDER BY a.id DESC, r.id DESC LIMIT 1",
            *events,
            tag.removeprefix("down-") if reverted else tag,
        )
        return int(rows[0][0], 16) if rows else None

    def identity(self) -> str | None:
        """Return what tells this database from every other, if it was ever asked for."""
        rows = self._history(
            "SELECT hash FROM __guard_history WHERE event = 'identified' ORDER BY id DESC LIMIT 1"
        )
        return rows[0][0] if rows else None

    def identify(self, identity: str) -> None:
        """Give the database its identity; the schema's last fingerprint is kept."""
        self._insert("identified", digest=identity, recorded=self._last_recorded())

    def was_adopted(self) -> bool:
        """Return whether some of it is what another tool's ledger, or the schema, said."""
        return bool(self._history("SELECT 1 FROM __guard_history WHERE event = 'adopted' LIMIT 1"))

    def last_text(self, digest: str) -> str | None:
        """Return the text of a migration as it was applied."""
        rows = self._history(
            "SELECT sql FROM __guard_history WHERE hash = ? AND sql IS NOT NULL ORDER BY id DESC LIMIT 1",
            digest,
        )
        return rows[0][0] if rows else None

    def texts(self) -> dict[tuple[str, int], StoredText]:
        """Return the stored text of each applied migration, by hash and time."""
        rows = self._history(
            "SELECT hash, created_at, sql, event FROM __guard_history"
            " WHERE sql IS NOT NULL AND event <> 'reverted' ORDER BY id"
        )
        return {(row[0], row[1]): StoredText(row[2], row[3] == APPLIED_IN_DEV) for row in rows}

    def downs(self, tags: Iterable[str]) -> dict[str, str]:
        """Return the down text that was stored with each of these migrations, by tag."""
        wanted = set(tags)
        rows = self._history(
            "SELECT tag, down FROM __guard_history WHERE down IS NOT NULL ORDER BY id"
        )
        return {tag: down for tag, down in rows if tag in wanted}

    def last_event(self) -> int:
        """Return the number of the newest row of the history; 0 where there is none."""
        rows = self._history("SELECT coalesce(max(id), 0) FROM __guard_history")
        return int(rows[0][0]) if rows else 0

    def continue_from(self, old: History, *, since: int, backup: str | None = None) -> None:
        """Insert the history of the `old` database before the rows here that follow `since`.

        An entry between them records the rewind. The caller completes the newest row.
        """
        connection = self.connection
        connection.execute("DELETE FROM __guard_history WHERE id <= ?", (since,))
        connection.execute("UPDATE __guard_history SET id = -id")
        info = old.connection.execute("PRAGMA table_info(__guard_history)")
        columns = [str(row[1]) for row in info]
        last = 0
        if columns:
            names, marks = ", ".join(columns), ", ".join("?" * len(columns))
            rows = old.connection.execute(f"SELECT {names} FROM __guard_history")
            connection.executemany(f"INSERT INTO __guard_history ({names}) VALUES ({marks})", rows)
            last = old.last_event()
        self._insert("rewound", backup=backup)
        said = self.last_event()
        connection.execute("UPDATE __guard_history SET id = ? WHERE id = ?", (last + 1, said))
        connection.execute(
            "UPDATE __guard_history SET id = ? - id WHERE id < 0", (last + 1 - since,)
        )

    def _history(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query over the history; none where there is no history."""
        if "__guard_history" not in self._tables():
            return []
        return self.connection.execute(sql, parameters).fetchall()

    def _insert(
        self,
        event: str,
        migration: Migration | None = None,
        *,
        digest: str | None = None,
        backup: str | None = None,
        facts: Facts = UNKNOWN,
        previous_hash: str | None = None,
        recorded: tuple[str | None, int | None] = (None, None),
    ) -> None:
        row = self._history_row(
            event,
            migration,
            digest=digest,
            backup=backup,
            facts=facts,
            previous_hash=previous_hash,
            recorded=recorded,
        )
        self._write("__guard_history", HISTORY_COLUMNS, [row])

    def _record(
        self,
        event: str,
        applied: Iterable[tuple[Migration, Facts]],
        *,
        backup: str | None,
        at: str,
    ) -> None:
        """Append what happened to each of these migrations, with what is known of it."""
        rows = [
            self._history_row(event, migration, backup=backup, at=at, facts=facts)
            for migration, facts in applied
        ]
        self._write("__guard_history", HISTORY_COLUMNS, rows)

    def _write(
        self, table: str, columns: str, rows: Sequence[tuple[object, ...]], *, found_as: str = ""
    ) -> None:
        """Insert rows and read them back; `found_as`: what to select where it is not just the columns.

        Raises VerificationFailed for a constraint that refuses a row: it was not we who made that.
        """
        marks = ",".join("?" * len(rows[0]))
        try:
            self.connection.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows)
        except sqlite3.IntegrityError as error:
            raise VerificationFailed(f"{table} refuses a row: {error}.", hint=_CHANGED) from error
        found = self.connection.execute(
            f"SELECT {found_as or columns} FROM {table} ORDER BY rowid DESC LIMIT ?", (len(rows),)
        ).fetchall()
        require_as_written(table, found[::-1], rows)

    def _history_row(
        self,
        event: str,
        migration: Migration | None,
        *,
        digest: str | None = None,
        backup: str | None,
        at: str | None = None,
        facts: Facts = UNKNOWN,
        previous_hash: str | None = None,
        recorded: tuple[str | None, int | None] = (None, None),
    ) -> tuple[object, ...]:
        """Return the values of a new row; `recorded` is what `_last_recorded` returns."""
        about: tuple[object, ...] = (None, digest, None)
        texts: tuple[object, ...] = (None, None)
        if migration is not None:
            about = (migration.tag, migration.hash, migration.when)
            texts = (migration.sql, _text(migration.down_file))
        fingerprint, version = recorded
        # Named after its database, whose name need not be UTF-8.
        backup = backup and backup.encode(errors="backslashreplace").decode()
        done = (at or iso(), facts.duration_ms, backup, self._program_version)
        hazards = None if facts.hazards is None else ", ".join(facts.hazards)
        found = (facts.rows_touched, facts.rehearsed_ms, hazards)
        return (event, *about, *done, fingerprint, previous_hash, version, *texts, *found)

    def _tables(self) -> frozenset[str]:
        """Return which of the two tables this database has."""
        rows = self.connection.execute(
            "SELECT lower(name) FROM sqlite_schema WHERE type = 'table' AND lower(name) IN (?, ?)",
            tuple(GUARD_TABLES),
        )
        return frozenset(name for (name,) in rows)

    # --- the schema's fingerprint ---------------------------------------------------------------

    def fingerprint(self) -> str:
        """Return the sha256, in hex, of every text in the schema but ours and SQLite's own.

        Uncommitted changes count. Where two differ the schemas may still mean the same:
        `schema.comparison`.
        """
        rows = self.connection.execute(
            "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE sql IS NOT NULL"
            " AND tbl_name NOT IN ('__drizzle_migrations', '__guard_history')"
            " AND tbl_name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY type, name"
        )
        texts = "\1".join(map("\0".join, rows))
        return sha256(texts.encode("utf-8", "surrogatepass")).hexdigest()

    def recorded_fingerprint(self) -> str | None:
        """Return the fingerprint of the current schema, if nobody changed it since we recorded it.

        None if that is unknown: then the schema has to be inspected.
        """
        fingerprint, version = self._last_recorded()
        return fingerprint if version == self._schema_version() else None

    def last_fingerprint(self) -> str | None:
        """Return the schema's fingerprint after the last change that we made, if we made one."""
        return self._last_recorded()[0]

    def record_fingerprint(self, fingerprint: str) -> None:
        """Complete the newest row with the schema's fingerprint, which is known only after it.

        Inside the transaction that wrote the row; a committed row is never changed.
        """
        written = fingerprint, self._schema_version()
        self.connection.execute(
            "UPDATE __guard_history SET fingerprint = ?, schema_version = ?"
            " WHERE id = (SELECT max(id) FROM __guard_history)",
            written,
        )
        require_as_written("__guard_history", [self._last_recorded()], [written])

    def _last_recorded(self) -> tuple[str | None, int | None]:
        """Return fingerprint and counter as our newest row has them."""
        try:
            row = self.connection.execute(
                "SELECT fingerprint, schema_version FROM __guard_history ORDER BY id DESC LIMIT 1"
            ).fetchone()
        except sqlite3.OperationalError:  # no history, or one of an early version
            return None, None
        return row or (None, None)

    def _schema_version(self) -> int:
        """Return SQLite's own counter of schema changes, made by anyone; no schema is parsed for it."""
        return int(self.connection.execute("PRAGMA schema_version").fetchone()[0])


def require_as_written(
    table: str, found: Sequence[tuple[object, ...]], written: Sequence[tuple[object, ...]]
) -> None:
    """Raise VerificationFailed unless the rows that are found are those that were written."""
    if list(found) != list(written):
        raise VerificationFailed(f"{table} does not hold what was written to it.", hint=_CHANGED)


def _text(file: str | None) -> str | None:
    """Return the text of the down file, for the history."""
    return Path(file).read_bytes().decode(errors="replace") if file else None
