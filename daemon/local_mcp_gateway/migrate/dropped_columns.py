"""Compare a column that migrations drop and add again with what it was.

SQLite cannot change a column, so people add another one, copy the values with an UPDATE, drop the old one
and rename. Without the UPDATE SQLite reports nothing, and afterwards the schema has all its columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from local_mcp_gateway.errors import VerificationFailed
from local_mcp_gateway.migrate.contents import Contents, read_contents, shape_of
from local_mcp_gateway.migrate.rebuild_checks import BESIDES, TOO_MANY, DataChange
from local_mcp_gateway.migrate.statements import accepted
from local_mcp_gateway.sql import fold, quote

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator
    from collections.abc import Set as AbstractSet

    from local_mcp_gateway.migrate.contents import Column
    from local_mcp_gateway.migrate.lineage import Table


class _Dropped(NamedTuple):
    """A column that was dropped."""

    key: str
    """What it was called then, folded."""
    contents: Contents
    """Of its table at that moment."""
    called: str
    """What the first file that met the table called it."""


class DroppedColumns:
    """The columns that a set of files has dropped, of tables that it has not made."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        limit: int,
        not_compared: Callable[[str, int, str], None],
    ) -> None:
        self.held: dict[tuple[Table, str], VerificationFailed] = {}
        """What is to be refused unless a later file mends it."""
        self._connection = connection
        self._limit = limit
        self._not_compared = not_compared
        self._first_names: dict[Table, dict[str, str]] = {}
        """Of renamed columns: their names → those before the set; folded."""
        self._dropped: dict[tuple[Table, str], _Dropped] = {}

    def follow(
        self, table: Table, called: str, old: str, new: str | None, assigned: set[tuple[str, str]]
    ) -> None:
        """Follow a column that is about to get a new name; with None it is about to be dropped.

        `assigned`: (table, column) of what UPDATEs have set. It is kept under the new name.
        """
        names = self._first_names.setdefault(table, {})
        first = names.pop(fold(old), fold(old))
        here = fold(table.names[-1])
        if (here, fold(old)) in assigned:
            assigned.remove((here, fold(old)))
            assigned |= {(here, fold(new))} if new is not None else set()
        if new is not None:
            names[fold(new)] = first
        else:
            contents = read_contents(self._connection, table.names[-1], limit=self._limit)
            self._dropped.setdefault((table, first), _Dropped(fold(old), contents, called))

    def compare(
        self, accepts: AbstractSet[str], tag: str, assigned: AbstractSet[tuple[str, str]]
    ) -> Iterator[DataChange]:
        """Compare those that are there again after this file; yield what has other values.

        A column that an UPDATE has set may well have its default in every row.
        """
        for at, dropped in list(self._dropped.items()):
            table, first = at
            now = table.line()[-1]
            shape = shape_of(self._connection, now.names[-1]) if now.alive else None
            column = None if shape is None else shape.columns.get(first)
            if shape is None or column is None:
                continue
            del self._dropped[at]
            self.held.pop(at, None)
            place = f"{quote(dropped.called)}.{quote(column.name)}"
            known = dropped.key in dropped.contents.columns and not column.generated
            if not known or accepted("changes_values", f"{dropped.called}.{first}") in accepts:
                continue
            forgotten = (fold(shape.name), first) not in assigned
            had_values = dropped.contents.has_values(dropped.key)
            if forgotten and had_values and self._is_empty(shape.name, column):
                self._dropped[at] = dropped
                self.held[at] = _refusal(place, column.default or "NULL", tag)
            elif self._differs(dropped, shape.name, first):
                message = (
                    f"{tag} drops {place}, and the column that has its name now has other values."
                )
                yield DataChange("changes_values", place, message, tag)

    def _is_empty(self, table: str, column: Column) -> bool:
        """Return whether a column has its default in every row of a table that has rows."""
        name, default = quote(column.name), column.default or "NULL"
        rows, others = self._connection.execute(
            f"SELECT EXISTS (SELECT 1 FROM main.{quote(table)}),"
            f" EXISTS (SELECT 1 FROM main.{quote(table)} WHERE {name} IS NOT ({default}))"
        ).fetchone()
        return bool(rows and not others)

    def _differs(self, dropped: _Dropped, table: str, key: str) -> bool:
        was = dropped.contents
        now = read_contents(self._connection, table, limit=2 * self._limit if was.complete else 0)
        reason = None if was.complete and now.complete else TOO_MANY
        if was.rows != now.rows:
            reason = reason or BESIDES
        if reason is not None:
            self._not_compared(table, now.rows, reason)
        if was.rows != now.rows or was.complete != now.complete:
            return False
        old, new = was.columns[dropped.key], now.columns[key]
        same_rows = was.rowids == now.rowids
        return old != new if same_rows else old.values != new.values


def _refusal(place: str, default: str, tag: str) -> VerificationFailed:
    return VerificationFailed(
        f"{place} would be {default} in every row: {tag} drops it, and the column that has its name now has"
        " none of its values.",
        hint="Copy them with an UPDATE before the old column is dropped, or accept it with the line"
        f" `-- guard: accept changes_values {place}`.",
        column=place,
        tag=tag,
    )
