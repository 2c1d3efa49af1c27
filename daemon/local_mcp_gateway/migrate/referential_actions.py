"""Emulate ON DELETE actions for migrations, which run with foreign keys off.

Foreign keys are off since a rebuild drops its old table and would delete the children with it. A file
that deletes a parent's rows and relies on ON DELETE for the children would then leave orphans. So a
trigger logs which keys a DELETE removed from a parent, and at the end of the file the rows that refer
to one of them get the action of their own foreign key: CASCADE, SET NULL or SET DEFAULT, down to the
last descendant. Nothing else is ever touched: neither an older orphan nor one with another cause.

No action is taken if the referring rows may not be the same as at the DELETE: the child or its column
was written after it, the child or the parent was altered or dropped after it, or keys of the parent
were changed by an UPDATE, which with foreign keys on would have changed the children too. Nor if the
parent is back. `verify` refuses the orphans that remain, as it does those of RESTRICT and NO ACTION,
and all in a file that switches foreign keys off itself.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from local_mcp_gateway.migrate.foreign_keys import read_references
from local_mcp_gateway.sql import fold, quote

if TYPE_CHECKING:
    from collections.abc import Iterable

    from local_mcp_gateway.migrate.authorizer import Authorizer, Write
    from local_mcp_gateway.migrate.foreign_keys import Reference
    from local_mcp_gateway.migrate.statements import Statement


_SWITCHES_OFF = re.compile(r"\bPRAGMA\s+foreign_keys\s*=\s*(?:OFF|0|FALSE|NO)\b", re.IGNORECASE)
_CHANGES_ROWS_ONLY = frozenset({"DELE", "WITH", "INSE", "UPDA", "REPL", "SELE"})
_ACTIONS = frozenset({"CASCADE", "SET NULL", "SET DEFAULT"})


def by_parent(references: tuple[Reference, ...]) -> dict[str, list[Reference]]:
    """Return the foreign keys by the folded name of their parent table."""
    grouped: dict[str, list[Reference]] = {}
    for reference in references:
        grouped.setdefault(fold(reference.parent), []).append(reference)
    return grouped


class Watch(NamedTuple):
    """One parent key whose deleted values are logged."""

    number: int
    parent: str
    keys: tuple[str, ...]
    collations: tuple[str, ...]
    references: tuple[Reference, ...]
    """Those that refer to this key, as they were when logging began."""

    @property
    def log(self) -> str:
        """Return the table of deleted values that are not processed yet."""
        return f'temp."__guard_deleted_{self.number}"'

    @property
    def taken(self) -> str:
        """Return the table of the values that are being processed."""
        return f'temp."__guard_taken_{self.number}"'

    @property
    def trigger(self) -> str:
        """Return the trigger that fills the log."""
        return f'temp."__guard_deletes_{self.number}"'


def start_referential_actions(
    connection: sqlite3.Connection, authorizer: Authorizer, sql: str
) -> ReferentialActions | None:
    """Return the emulation for a file; None if it switched foreign keys off itself."""
    return None if _SWITCHES_OFF.search(sql) else ReferentialActions(connection, authorizer)


class ReferentialActions:
    """The ON DELETE actions of one file; lives from its first statement to its last.

    Creates temporary tables and triggers on the connection; `take` removes them. If the file fails, the
    rollback does.
    """

    def __init__(self, connection: sqlite3.Connection, authorizer: Authorizer) -> None:
        self.deleting: Statement | None = None
        """The first statement that deleted rows with children."""
        self.said: list[str] = []
        """What was done, as statements that need nothing of this module."""
        self._connection = connection
        self._authorizer = authorizer
        self._watches: list[Watch] = []
        self._watched: set[str] = set()
        """The tables with children whose deletions are logged now; folded."""
        self._references: dict[str, list[Reference]] | None = None
        self._since: set[Write] = set()
        """What was written since rows with children were deleted."""

    def before(self, statement: Statement) -> None:
        """Prepare for one statement, which has not been given to SQLite yet."""
        head = statement.text[:4].upper()
        if head not in _CHANGES_ROWS_ONLY:
            self._stop_watching()  # it may alter a table that the triggers use
        elif head in ("DELE", "WITH"):
            self._watch(self._deletes_from(statement.text))
        self._authorizer.writes = set() if self._watches else None

    def after(self, statement: Statement) -> None:
        """Check what the statement deleted and wrote."""
        if self.deleting is None and self._keep_those_with_children():
            self.deleting = statement
        if self.deleting is not None:
            self._since |= self._authorizer.writes or set()

    def take(self) -> None:
        """Run the actions until no row is left to process; raises sqlite3.Error where one fails."""
        while self.deleting is not None:
            taken = [watch for watch in self._watches if self._takes(watch)]
            if not taken:
                break
            for watch in taken:
                self._act(watch)
        self._authorizer.writes = None
        self._stop_watching()
        with self._authorizer.suspended():
            for watch in self._watches:
                self._connection.execute(f"DROP TABLE IF EXISTS {watch.log}")
                self._connection.execute(f"DROP TABLE IF EXISTS {watch.taken}")
        self._watches = []

    def _takes(self, watch: Watch) -> bool:
        """Move what was deleted and is not back from the log to the table of values being processed."""
        parent = fold(watch.parent)
        altered = any(write.definition and write.table == parent for write in self._since)
        if altered or self._is_empty(watch.log):
            return False
        same = " AND ".join(
            f"p.{quote(key)} = d.k{at}" for at, key in enumerate(watch.keys)
        )  # with the parent on the left its collation applies
        with self._authorizer.suspended():
            self._connection.execute(f"DELETE FROM {watch.taken}")
            moved = self._connection.execute(
                f"INSERT INTO {watch.taken} SELECT DISTINCT * FROM {watch.log} AS d"
                f" WHERE NOT EXISTS (SELECT 1 FROM main.{quote(watch.parent)} AS p WHERE {same})"
            )
            self._connection.execute(f"DELETE FROM {watch.log}")
        return moved.rowcount > 0

    def _act(self, watch: Watch) -> None:
        certain = [one for one in watch.references if self._is_certain(watch, one)]
        for reference in watch.references:
            if reference.on_delete == "RESTRICT" and (
                reference not in certain or self._has_children(watch, reference)
            ):
                return  # its orphans stay, so the migration is refused as SQLite would have
        for reference in certain:
            action = self._action(reference)
            if action is None:
                continue
            sql = f"{action} WHERE {_names_one_of(watch.taken, watch, reference)}"
            self._watch(self._deletes_from(sql))
            self._authorizer.writes = set()
            if self._connection.execute(sql).rowcount > 0:
                self.said.append(f"{action} WHERE {_names_none(watch, reference)}")
            default = reference.on_delete == "SET DEFAULT"  # may be a deleted value as well
            self._since |= {write for write in self._authorizer.writes if write.nested or default}

    def _action(self, reference: Reference) -> str | None:
        """Return the statement for the foreign key's action up to its condition, if it has one."""
        table = f"main.{quote(reference.child)}"
        match reference.on_delete:
            case "CASCADE":
                return f"DELETE FROM {table}"
            case "SET NULL":
                values = dict.fromkeys(reference.columns, "NULL")
            case "SET DEFAULT":
                from local_mcp_gateway.schema import read_default

                with self._authorizer.suspended():
                    declared = dict(
                        self._connection.execute(
                            "SELECT name, dflt_value FROM pragma_table_xinfo(?)", (reference.child,)
                        )
                    )
                values = {
                    column: "NULL"
                    if declared[column] is None
                    else read_default(declared[column]).text
                    for column in reference.columns
                }
            case _:
                return None
        sets = ", ".join(f"{quote(column)} = ({value})" for column, value in values.items())
        return f"UPDATE {table} SET {sets}"

    def _is_certain(self, watch: Watch, reference: Reference) -> bool:
        """Return whether the rows that refer to a deleted key are the same as at the DELETE."""
        child, parent = fold(reference.child), fold(watch.parent)
        keys = {"rowid", *map(fold, watch.keys)}
        if any((parent, key) in self._authorizer.updated for key in keys):
            return False
        columns = {None, *map(fold, reference.columns)}
        return not any(
            write.table in (child, parent)
            if write.definition
            else write.table == child and write.column in columns
            for write in self._since
        )

    def _keep_those_with_children(self) -> bool:
        """Forget deleted keys that no row refers to; return whether there are others."""
        found = False
        with self._authorizer.suspended():
            for watch in self._watches:
                if not self._is_empty(watch.log):
                    if any(self._has_children(watch, one, watch.log) for one in watch.references):
                        found = True
                    else:
                        self._connection.execute(f"DELETE FROM {watch.log}")
        return found

    def _is_empty(self, table: str) -> bool:
        with self._authorizer.suspended():
            return self._connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() is None

    def _has_children(self, watch: Watch, reference: Reference, keys: str | None = None) -> bool:
        where = _names_one_of(keys or watch.taken, watch, reference)
        row = self._connection.execute(
            f"SELECT 1 FROM main.{quote(reference.child)} WHERE {where} LIMIT 1"
        ).fetchone()
        return row is not None

    def _deletes_from(self, sql: str) -> set[str]:
        """Find from which tables a statement deletes rows, by its triggers too; runs nothing."""
        known, self._authorizer.changes = self._authorizer.changes, []
        with suppress(sqlite3.Error, ValueError):  # running it reports the error
            self._connection.execute(f"EXPLAIN {sql}").fetchall()
        found = self._authorizer.changes
        self._authorizer.changes = known + found
        return {change.table for change in found}

    def _watch(self, tables: Iterable[str]) -> None:
        new = {fold(table) for table in tables} - self._watched
        if not new:
            return
        self._watched |= new
        with self._authorizer.suspended():
            if self._references is None:
                self._references = by_parent(read_references(self._connection))
            for parent in new:
                named = [
                    r for r in self._references.get(parent, ()) if len(r.keys) == len(r.columns)
                ]
                for keys in dict.fromkeys(reference.keys for reference in named):
                    same = tuple(reference for reference in named if reference.keys == keys)
                    if any(reference.on_delete in _ACTIONS for reference in same):
                        self._start(parent, keys, same)

    def _start(self, parent: str, keys: tuple[str, ...], references: tuple[Reference, ...]) -> None:
        from local_mcp_gateway.schema import read_table

        row = self._connection.execute(
            "SELECT sql FROM sqlite_schema WHERE type = 'table' AND lower(name) = ?"
            " AND sql NOT LIKE 'CREATE VIRTUAL%'",
            (parent,),
        ).fetchone()

        columns = read_table(row[0]).columns if row else {}
        if not {fold(key) for key in keys} <= columns.keys():
            return  # an invalid foreign key: SQLite reports it at the next write with keys on
        collations = tuple(columns[fold(key)].collation for key in keys)
        watch = Watch(len(self._watches), parent, keys, collations, references)
        self._watches.append(watch)
        empty = ", ".join(f"{quote(key)} AS k{at}" for at, key in enumerate(keys))
        for table in (watch.log, watch.taken):  # AS SELECT gives the columns the parent's affinity
            self._connection.execute(
                f"CREATE TABLE {table} AS SELECT {empty} FROM main.{quote(parent)} WHERE 0"
            )
        old = ", ".join(f"OLD.{quote(key)}" for key in keys)
        self._connection.execute(
            f"CREATE TRIGGER {watch.trigger} AFTER DELETE ON main.{quote(parent)}"
            f" BEGIN INSERT INTO {watch.log.removeprefix('temp.')} VALUES ({old}); END"
        )

    def _stop_watching(self) -> None:
        self._references = None
        self._watched = set()
        with self._authorizer.suspended():
            for watch in self._watches:
                self._connection.execute(f"DROP TRIGGER IF EXISTS {watch.trigger}")


def _names_one_of(table: str, watch: Watch, reference: Reference) -> str:
    """Return the condition under which a row of the child refers to one of the keys in `table`.

    Compared as SQLite's own actions compare: by the parent's collation.
    """
    columns = ", ".join(
        f"{quote(column)} COLLATE {quote(collation)}"
        for column, collation in zip(reference.columns, watch.collations, strict=True)
    )
    return f"({columns}) IN (SELECT * FROM {table})"


def _names_none(watch: Watch, reference: Reference) -> str:
    """Return the condition under which a row of the child refers to a key that is not there."""
    child = quote(reference.child)
    columns = [f"{child}.{quote(column)}" for column in reference.columns]
    given = " AND ".join(f"{column} IS NOT NULL" for column in columns)
    same = " AND ".join(
        f"p.{quote(key)} = {column}" for key, column in zip(watch.keys, columns, strict=True)
    )
    parent = f"main.{quote(watch.parent)}"
    return f"{given} AND NOT EXISTS (SELECT 1 FROM {parent} AS p WHERE {same})"
