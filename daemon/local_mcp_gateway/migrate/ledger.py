"""The ledger of applied migrations, in Drizzle's own table, with our history next to it.

`__drizzle_migrations` has exactly Drizzle's own format, so that either tool can take over; rows that
Drizzle wrote stay as they are. A ledger of Drizzle 1.x has two more columns (name, applied_at), which
are read, and filled where they exist.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from local_mcp_gateway.errors import HistoryRefused, Problem, ProblemCode, VerificationFailed
from local_mcp_gateway.formats import iso
from local_mcp_gateway.migrate.history import (
    CREATE_HISTORY,
    GUARD_TABLES,
    HISTORY_COLUMNS,
    LATER_COLUMNS,
    Facts,
    History,
    Recorded,
    require_as_written,
)
from local_mcp_gateway.sql import quote

if TYPE_CHECKING:
    from local_mcp_gateway.migrate.folder import Migration
    from local_mcp_gateway.migrate.resolution import AppliedMigration, Edited

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
_CREATE_V1_LEDGER = """
CREATE TABLE IF NOT EXISTS "__drizzle_migrations" (
	id INTEGER PRIMARY KEY,
	hash text NOT NULL,
	created_at numeric,
	name text,
	applied_at TEXT
)"""
_REQUIRED = {
    "__drizzle_migrations": {"hash", "created_at"},
    "__guard_history": {*HISTORY_COLUMNS.split(", "), "id"} - {*LATER_COLUMNS},
}
"""Columns without which a table of ours is another one."""


class Applied(NamedTuple):
    """One row of the ledger, with what the history has about it."""

    hash: str
    """Text, unless another program wrote the row: then `resolve` refuses the ledger."""
    created_at: int
    tag: str | None = None
    applied_at: str | None = None
    duration_ms: float | None = None


class Ledger(History):
    """The ledger and the history of the database on this connection.

    Anybody can write to the file, so reading raises HistoryRefused where something else has the name of one
    of the two tables, or a trigger is on one.
    """

    TABLES: ClassVar = GUARD_TABLES

    def rows(self, *, details: bool = True) -> tuple[Applied, ...]:
        """Return the ledger's rows in the order in which they were written; none without a ledger.

        Without `details`, what the history knows (tag, applied_at, duration) is left out: a third of the time.
        """
        self.require_own_tables()
        if not details:
            return self._brief_rows()
        tables = self._tables()
        if "__drizzle_migrations" not in tables:
            return ()
        known = {}
        if "__guard_history" in tables:
            known = {
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
            tag, at, spent = known.get((digest, when), nothing)
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

    def ensure(self, *, is_v1: bool = False) -> None:
        """Create the ledger and the history if they are missing.

        `is_v1`: a new ledger gets the columns of Drizzle 1.x, for a folder in its format.
        """
        self.require_own_tables()
        self.connection.execute(_CREATE_V1_LEDGER if is_v1 else _CREATE_LEDGER)
        self.connection.execute(CREATE_HISTORY)
        rows = self.connection.execute("PRAGMA table_info(__guard_history)")
        found = {row[1] for row in rows}
        for column, kind in LATER_COLUMNS.items():
            if column not in found:
                self.connection.execute(f"ALTER TABLE __guard_history ADD COLUMN {column} {kind}")

    def record(
        self,
        applied: Sequence[tuple[Migration, Facts]],
        *,
        event: str = "applied",
        backup: str | None = None,
    ) -> None:
        """Record migrations as applied, in order, with what is known of each."""
        if not applied:
            return
        columns = "hash, created_at" + (", name, applied_at" if self._is_v1() else "")
        now = iso()
        count = columns.count(",") + 1
        rows = [(m.hash, m.when, m.tag, now)[:count] for m, _ in applied]
        found_as = columns.replace("created_at", _CREATED_AT)
        self._write("__drizzle_migrations", columns, rows, found_as=found_as)
        self._record(event, applied, backup=backup, at=now)

    def forget(self, applied: AppliedMigration, *, facts: Facts, backup: str | None = None) -> None:
        """Remove a reverted migration from the ledger and record it in the history."""
        taken = self.connection.execute(
            f"DELETE FROM __drizzle_migrations WHERE {_ROW}", (applied.hash, applied.created_at)
        )
        _require_row(taken, applied.tag)
        self._insert("reverted", applied.migration, backup=backup, facts=facts)

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
        require_as_written("__drizzle_migrations", found, [(1,)])
        self._insert(event, migration, previous_hash=row.hash)

    def note_replicated(self, transaction: int, *, backup: str) -> None:
        """Append the replica's transaction that has what is in this backup, just made."""
        digest = f"{transaction:016x}"
        self.ensure()
        self._insert("replicated", digest=digest, backup=backup, recorded=self._last_recorded())

    def events(self) -> tuple[Recorded, ...]:
        """Return everything that happened to this database, oldest first."""
        self.require_own_tables()
        there = {row[1] for row in self.connection.execute("PRAGMA table_info(__guard_history)")}
        columns = ", ".join(
            name if name in there else f"NULL AS {name}" for name in Recorded._fields
        )
        rows = self._history(f"SELECT {columns} FROM __guard_history ORDER BY id")
        # No kind is the empty text, which says that none was found.
        return tuple(
            Recorded._make(
                (*row, None if hazards is None else tuple(filter(None, hazards.split(", "))))
            )
            for *row, hazards in rows
        )

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


def _require_row(cursor: sqlite3.Cursor, tag: str) -> None:
    if cursor.rowcount < 1:
        raise VerificationFailed(
            f"The ledger's row of {tag} could not be found again.",
            hint="Another program changes __drizzle_migrations; the database is unchanged.",
            tag=tag,
        )
