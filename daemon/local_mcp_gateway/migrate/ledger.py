"""The ledger of applied migrations, in Drizzle's own table, and our history beside it.

`__drizzle_migrations` has exactly Drizzle's own format, so that either tool can take over; rows that
Drizzle wrote stay as they are. A ledger of Drizzle 1.x has two more columns (name, applied_at), which
are read, and filled where they exist. What only we know is in `__guard_history`: what happened, when, by
which version, and the text of each applied migration (and of its down file), so that an edited file can
be compared with what really ran, and a migration can be reverted after its file is gone. Its rows are
never changed or removed, and a further row corrects a mistake.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from local_mcp_gateway.errors import HistoryRefused, Problem, ProblemCode, VerificationFailed
from local_mcp_gateway.formats import iso
from local_mcp_gateway.sql import quote

if TYPE_CHECKING:
    from local_mcp_gateway.migrate.folder import Migration
    from local_mcp_gateway.migrate.resolution import AppliedMigration, Edited

GUARD_TABLES = frozenset({"__drizzle_migrations", "__guard_history"})
APPLIED_IN_DEV = "applied_in_dev"
"""What dev mode applied, dev mode may revert, also at a start."""

_CREATED_AT = "CAST(coalesce(created_at, 0) AS INTEGER)"
"""The time of a ledger row, whose column has no type: a tool may have left it out."""
_ROW = f"hash = ? AND {_CREATED_AT} = ?"
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
_HISTORY_COLUMNS = (
    "event, tag, hash, created_at, applied_at, duration_ms, backup, program_version, fingerprint,"
    " previous_hash, schema_version, sql, down"
)
_INSERT_HISTORY = (
    f"INSERT INTO __guard_history ({_HISTORY_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)"
)
_REQUIRED = {
    "__drizzle_migrations": {"hash", "created_at"},
    "__guard_history": {*_HISTORY_COLUMNS.split(", "), "id"} - {"schema_version"},
}
"""Columns without which a table of ours is another one; early versions had no schema_version."""
_CHANGED = (
    "Another program has changed that table; the database is unchanged. Compare it with a backup"
    " (`db backup list`), and restore that if need be."
)


class Applied(NamedTuple):
    """One row of the ledger, with what the history has about it."""

    hash: str
    """Text, unless another program wrote the row: then `resolve` refuses the ledger."""
    created_at: int
    tag: str | None = None
    applied_at: str | None = None
    duration_ms: float | None = None


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


class Kept(NamedTuple):
    """The stored text of one migration as it was applied."""

    sql: str
    in_dev: bool


class Ledger:
    """The ledger and the history of the database on this connection.

    Each write is part of the caller's transaction, says which version of the program made it, and is
    read back: VerificationFailed is raised unless it is there as written. Anybody can write to the file,
    so reading raises HistoryRefused where something else has the name of one of the two tables, or a
    trigger is on one.
    `backup` is always the name of the backup from before.
    """

    TABLES: ClassVar = GUARD_TABLES

    def __init__(self, connection: sqlite3.Connection, *, program_version: str = "") -> None:
        self.connection = connection
        self._program_version = program_version

    # --- what is applied ------------------------------------------------------------------------

    def rows(self, *, brief: bool = False) -> tuple[Applied, ...]:
        """Return the ledger's rows in the order in which they were written; none without a ledger.

        `brief` leaves out what the history knows (tag, applied_at, duration): a third of the time.
        """
        self.require_own_tables()
        if brief:
            return self._brief_rows()
        tables = self._tables()
        if "__drizzle_migrations" not in tables:
            return ()
        details = {}
        if "__guard_history" in tables:
            details = {
                (row[0], row[1]): row[2:]
                for row in self.connection.execute(
                    "SELECT hash, created_at, tag, applied_at, duration_ms FROM __guard_history"
                    " WHERE event <> 'reverted' ORDER BY id"
                )
            }
        extra = "name, applied_at" if self._is_v1() else "NULL, NULL"
        nothing = (None, None, None)
        found = []
        for digest, when, name, applied_at in self.connection.execute(
            f"SELECT hash, {_CREATED_AT}, {extra} FROM __drizzle_migrations ORDER BY rowid"
        ):
            tag, at, spent = details.get((digest, when), nothing)
            found.append(Applied(digest, when, name or tag, at or applied_at, spent))
        return tuple(found)

    def _brief_rows(self) -> tuple[Applied, ...]:
        try:
            rows = self.connection.execute(
                f"SELECT hash, {_CREATED_AT}, NULL, NULL, NULL FROM __drizzle_migrations ORDER BY rowid"
            ).fetchall()
        except sqlite3.OperationalError:
            if "__drizzle_migrations" in self._tables():
                raise
            return ()
        return tuple(map(Applied._make, rows))

    def names(self) -> list[str]:
        """Return what is applied: tags, or hashes where no history has the tag.

        A row with neither is left out: a database whose ledger is refused can still be backed up.
        """
        try:
            names: list[object] = [row.tag or row.hash for row in self.rows()]
        except HistoryRefused:
            return []
        return [name for name in names if isinstance(name, str)]

    def has_applied(self, migration: Migration) -> bool:
        """Return whether this database has applied it, even with a text that was edited since."""
        return any(
            row.hash in migration.hashes or row.created_at == migration.when for row in self.rows()
        )

    def ensure(self, *, stamped: bool = False) -> None:
        """Create the ledger and the history if they are missing.

        `stamped`: a new ledger gets the columns of Drizzle 1.x, for a folder in its format.
        """
        self.require_own_tables()
        self.connection.execute(_CREATE_STAMPED_LEDGER if stamped else _CREATE_LEDGER)
        self.connection.execute(_CREATE_HISTORY)
        rows = self.connection.execute("PRAGMA table_info(__guard_history)")
        if "schema_version" not in {row[1] for row in rows}:  # made by an early version
            self.connection.execute("ALTER TABLE __guard_history ADD COLUMN schema_version INTEGER")

    def record(
        self,
        applied: Sequence[tuple[Migration, float | None]],
        *,
        event: str = "applied",
        backup: str | None = None,
    ) -> None:
        """Record migrations as applied, in order, with the milliseconds that each took if known."""
        now = iso()
        with _named_refusal("__drizzle_migrations"):
            if self._is_v1():
                self.connection.executemany(
                    "INSERT INTO __drizzle_migrations (hash, created_at, name, applied_at)"
                    " VALUES (?,?,?,?)",
                    [(m.hash, m.when, m.tag, now) for m, _ in applied],
                )
            else:
                self.connection.executemany(
                    "INSERT INTO __drizzle_migrations (hash, created_at) VALUES (?,?)",
                    [(m.hash, m.when) for m, _ in applied],
                )
        found = self.connection.execute(
            f"SELECT hash, {_CREATED_AT} FROM __drizzle_migrations ORDER BY rowid DESC LIMIT ?",
            (len(applied),),
        ).fetchall()
        written = [(m.hash, m.when) for m, _ in applied]
        _require_as_written("__drizzle_migrations", found[::-1], written)
        rows = [
            self._history_row(event, migration, backup=backup, at=now, duration_ms=spent)
            for migration, spent in applied
        ]
        with _named_refusal("__guard_history"):
            self.connection.executemany(_INSERT_HISTORY, rows)
        found = self.connection.execute(
            f"SELECT {_HISTORY_COLUMNS} FROM __guard_history ORDER BY id DESC LIMIT ?",
            (len(rows),),
        ).fetchall()
        _require_as_written("__guard_history", found[::-1], rows)

    def forget(
        self, applied: AppliedMigration, *, duration_ms: float | None, backup: str | None = None
    ) -> None:
        """Remove a reverted migration from the ledger and record it in the history."""
        taken = self.connection.execute(
            f"DELETE FROM __drizzle_migrations WHERE {_ROW}", (applied.hash, applied.created_at)
        )
        _require_row(taken, applied.tag)
        self._insert("reverted", applied.migration, backup=backup, duration_ms=duration_ms)

    def accept(self, edited: Edited, *, event: str) -> None:
        """Store an edited file's hash in the ledger, and its text and the old hash in the history."""
        row, migration = edited.row, edited.migration
        changed = self.connection.execute(
            f"UPDATE __drizzle_migrations SET hash = ?, created_at = ? WHERE {_ROW}",
            (migration.hash, migration.when, row.hash, row.created_at),
        )
        _require_row(changed, migration.tag)
        found = self.connection.execute(
            f"SELECT count(*) > 0 FROM __drizzle_migrations WHERE {_ROW}",
            (migration.hash, migration.when),
        ).fetchall()
        _require_as_written("__drizzle_migrations", found, [(1,)])
        self._insert(event, migration, previous_hash=row.hash)

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
        _require_as_written("__guard_history", [self._last_recorded()], [written])

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

    # --- the history ----------------------------------------------------------------------------

    def note(self, event: str, *, backup: str | None = None) -> None:
        """Append what happened to the whole database, not to one migration: restored, reset, seeded.

        The schema's last fingerprint is kept: an earlier manual change remains drift.
        """
        self._insert(event, backup=backup, recorded=self._last_recorded())

    def note_replicated(self, transaction: int, *, backup: str) -> None:
        """Append the replica's transaction that has what is in this backup, just made."""
        digest = f"{transaction:016x}"
        self.ensure()
        self._insert("replicated", digest=digest, backup=backup, recorded=self._last_recorded())

    def replicated_before(self, tag: str) -> int | None:
        """Return the replica's transaction from before the migration was last applied, if it was noted."""
        rows = self._history(
            "SELECT r.hash FROM __guard_history r JOIN __guard_history a"
            " ON a.backup = r.backup AND a.id > r.id"
            " WHERE r.event = 'replicated' AND a.event IN ('applied', 'applied_in_dev') AND a.tag = ?"
            " ORDER BY a.id DESC, r.id DESC LIMIT 1",
            tag,
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

    def events(self) -> tuple[Recorded, ...]:
        """Return everything that happened to this database, oldest first."""
        self.require_own_tables()
        rows = self._history(
            "SELECT event, tag, hash, created_at, applied_at, duration_ms, backup, program_version,"
            " fingerprint, previous_hash FROM __guard_history ORDER BY id"
        )
        return tuple(map(Recorded._make, rows))

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

    def texts(self) -> dict[tuple[str, int], Kept]:
        """Return the stored text of each applied migration, by hash and time."""
        rows = self._history(
            "SELECT hash, created_at, sql, event FROM __guard_history"
            " WHERE sql IS NOT NULL AND event <> 'reverted' ORDER BY id"
        )
        return {(row[0], row[1]): Kept(row[2], row[3] == APPLIED_IN_DEV) for row in rows}

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

    def continue_from(self, old: Ledger, *, since: int, backup: str | None = None) -> None:
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
        said = self._insert("rewound", backup=backup)
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
        duration_ms: float | None = None,
        previous_hash: str | None = None,
        recorded: tuple[str | None, int | None] = (None, None),
    ) -> int | None:
        row = self._history_row(
            event,
            migration,
            digest=digest,
            backup=backup,
            duration_ms=duration_ms,
            previous_hash=previous_hash,
            recorded=recorded,
        )
        with _named_refusal("__guard_history"):
            number = self.connection.execute(_INSERT_HISTORY, row).lastrowid
        found = self.connection.execute(
            f"SELECT {_HISTORY_COLUMNS} FROM __guard_history WHERE id = ?", (number,)
        ).fetchall()
        _require_as_written("__guard_history", found, [row])
        return number

    def _history_row(
        self,
        event: str,
        migration: Migration | None,
        *,
        digest: str | None = None,
        backup: str | None,
        at: str | None = None,
        duration_ms: float | None = None,
        previous_hash: str | None = None,
        recorded: tuple[str | None, int | None] = (None, None),
    ) -> tuple[object, ...]:
        """Return the values of a new row; `recorded` is what `_last_recorded` returns."""
        about: tuple[object, ...] = (None, digest, None)
        texts: tuple[object, ...] = (None, None)
        if migration is not None:
            about = (migration.tag, migration.hash, migration.when)
            texts = (migration.sql, _text(migration.down))
        fingerprint, version = recorded
        # Named after its database, whose name need not be UTF-8.
        backup = backup and backup.encode(errors="backslashreplace").decode()
        facts = (at or iso(), duration_ms, backup, self._program_version)
        return (event, *about, *facts, fingerprint, previous_hash, version, *texts)

    def require_own_tables(self) -> None:
        """Raise HistoryRefused if something else has the name of one of the tables, or a trigger is on one."""
        rows = self.connection.execute(
            "SELECT type, name, tbl_name, CASE WHEN type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%'"
            " THEN (SELECT group_concat(lower(c.name)) FROM pragma_table_info(m.name) AS c) END"
            " FROM sqlite_schema AS m WHERE (type <> 'trigger' AND lower(name) IN (?1, ?2))"
            " OR (type = 'trigger' AND lower(tbl_name) IN (?1, ?2))",
            tuple(GUARD_TABLES),
        )
        problems = [problem for row in rows if (problem := _not_ours(*row)) is not None]
        if problems:
            raise HistoryRefused(problems)

    def _tables(self) -> frozenset[str]:
        """Return which of the two tables this database has."""
        rows = self.connection.execute(
            "SELECT lower(name) FROM sqlite_schema WHERE type = 'table' AND lower(name) IN (?, ?)",
            tuple(GUARD_TABLES),
        )
        return frozenset(name for (name,) in rows)

    def _is_v1(self) -> bool:
        rows = self.connection.execute("PRAGMA table_info(__drizzle_migrations)")
        return {"name", "applied_at"} <= {row[1] for row in rows}


def _not_ours(kind: str, name: str, table: str, columns: str | None) -> Problem | None:
    """Return what is wrong with an object that has one of our names, or is a trigger on one."""
    if kind == "trigger":
        message = f"The trigger {name} on {table} could change what the guard records."
        hint = f"Drop it in SQLite (DROP TRIGGER {quote(name)}), then start again."
        return Problem(ProblemCode.NOT_OUR_TABLE, message, hint)
    if columns is not None:
        missing = sorted(_REQUIRED[name.lower()] - set(columns.split(",")))
        if not missing:
            return None
        message = (
            f"{name} is not the table in which the guard keeps its records: it has no {missing[0]}."
        )
        hint = "Rename the table in SQLite if another program needs it; else restore a backup."
        return Problem(ProblemCode.NOT_OUR_TABLE, message, hint)
    what = "a virtual table" if kind == "table" else "an index" if kind == "index" else f"a {kind}"
    message = f"{name} is {what}, not the table in which the guard keeps its records."
    hint = f"Drop it in SQLite (DROP {kind.upper()} {quote(name)}), then start again."
    return Problem(ProblemCode.NOT_OUR_TABLE, message, hint)


@contextmanager
def _named_refusal(table: str) -> Iterator[None]:
    """Translate a constraint of a table that refuses a row: it was not we who made that."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise VerificationFailed(f"{table} refuses a row: {error}.", hint=_CHANGED) from error


def _require_as_written(
    table: str, found: Sequence[tuple[object, ...]], written: Sequence[tuple[object, ...]]
) -> None:
    if list(found) != list(written):
        raise VerificationFailed(f"{table} does not hold what was written to it.", hint=_CHANGED)


def _require_row(cursor: sqlite3.Cursor, tag: str) -> None:
    if cursor.rowcount < 1:
        raise VerificationFailed(
            f"The ledger's row of {tag} could not be found again.",
            hint="Another program changes __drizzle_migrations; the database is unchanged.",
            tag=tag,
        )


def _text(path: Path | None) -> str | None:
    """Return the text of the down file, for the history."""
    return path.read_bytes().decode(errors="replace") if path else None
