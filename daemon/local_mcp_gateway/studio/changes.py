"""Insert, update or delete one row in a transaction, and undo it.

A change says what it expects to find: a row that another program changed in the meantime is left alone,
and the person is told. A way back restores the row and nothing else; what SQLite changed along with it
(a trigger, a deletion that cascades) is said before, and then there is no way back.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from local_mcp_gateway.database import uri
from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.studio.rows import check_writable
from local_mcp_gateway.studio.tables import Table, quoted
from local_mcp_gateway.studio.values import by_key_text, exactly, key_text

MOST_KEPT_BYTES: Final = 32 * 1024 * 1024
"""A larger row cannot be brought back after it was deleted."""
BUSY_MS: Final = 2_000


class Writer(Protocol):
    """One open transaction."""

    async def execute(self, sql: str, parameters: Iterable[object] = (), /) -> int:
        """Run one statement; return how many rows it changed."""

    async def fetch_all(self, sql: str, parameters: Iterable[object] = (), /) -> list[Any]:
        """Return every row of one statement."""


Transactions = Callable[[], AbstractAsyncContextManager[Writer]]


@dataclass(frozen=True, slots=True)
class WayBack:
    """How one change is taken back: a statement that has to change exactly one row."""

    table: str
    sql: str
    values: tuple[object, ...]
    said: str


class FileWriter:
    """A transaction of its own on a database file, for a studio without a gateway."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def execute(self, sql: str, parameters: Iterable[object] = (), /) -> int:
        """Run one statement; return how many rows it changed."""
        given = tuple(parameters)
        return (await asyncio.to_thread(self._connection.execute, sql, given)).rowcount

    async def fetch_all(self, sql: str, parameters: Iterable[object] = (), /) -> list[Any]:
        """Return every row of one statement."""
        given = tuple(parameters)
        return await asyncio.to_thread(lambda: self._connection.execute(sql, given).fetchall())

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[Writer]:
        """Hold SQLite's write lock for the block; an exception rolls back."""
        connection = await asyncio.to_thread(_open_writable, path)
        try:
            await asyncio.to_thread(connection.execute, "BEGIN IMMEDIATE")
            yield cls(connection)
            await asyncio.to_thread(connection.execute, "COMMIT")
        finally:
            if connection.in_transaction:
                connection.rollback()
            connection.close()


def _open_writable(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{uri(path)}?mode=rw",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_MS / 1000,
    )
    connection.execute("PRAGMA foreign_keys=ON")
    return connection


def _check_columns(table: Table, names: Iterable[str]) -> None:
    """Raise UsageProblem unless these are columns that a form may write."""
    for name in names:
        column = table.column(name)
        if column is None:
            raise UsageProblem(f"{table.name} has no column {name!r}.", hint="Load the page again.")
        check_writable(table, column)


async def update(
    writer: Writer, table: Table, key: str, old: Mapping[str, object], new: Mapping[str, object]
) -> tuple[str, WayBack]:
    """Set columns of one row that still has the old values; return its key afterwards and the way back."""
    _check_columns(table, new)
    condition, keys = by_key_text(table, key)
    before = await _values(writer, table, list(new), condition, keys)
    if before is None or any(before[name] != old[name] for name in old):
        raise UsageProblem(
            "This row was changed in the meantime; your change was not stored.",
            hint="Load the row again and look at what it is now.",
        )
    sets = ", ".join(f"{quoted(name)} = ?" for name in new)
    changed = await writer.execute(
        f"UPDATE {quoted(table.name)} SET {sets} WHERE {condition}", (*new.values(), *keys)
    )
    if changed != 1:
        raise UsageProblem("This row is gone; nothing was stored.", hint="Go back to the list.")
    key_now = _moved(table, keys, new)
    there, its = by_key_text(table, key_now)
    after = await _values(writer, table, list(new), there, its)
    if after is None:
        raise UsageProblem(
            "A trigger took the row away; nothing was stored.", hint="See its triggers."
        )
    back = ", ".join(f"{quoted(name)} = ?" for name in new)
    still = " AND ".join(f"{quoted(name)} IS ?" for name in new)
    way_back = WayBack(
        table.name,
        f"UPDATE {quoted(table.name)} SET {back} WHERE {there} AND {still}",
        (*before.values(), *its, *after.values()),
        "The change is taken back.",
    )
    return key_now, way_back


def _moved(table: Table, keys: Sequence[object], new: Mapping[str, object]) -> str:
    """Return the key of a row whose key columns may have been changed; an INTEGER key is the rowid."""
    if not table.by_rowid:
        return key_text([new.get(name, key) for name, key in zip(table.key, keys, strict=True)])
    alias = rowid_alias(table)
    return key_text([new.get(alias, keys[0]) if alias is not None else keys[0]])


def rowid_alias(table: Table) -> str | None:
    """Return the column that is another name of the rowid, if there is one."""
    keyed = [column for column in table.columns if column.key]
    if len(keyed) == 1 and keyed[0].type.upper() == "INTEGER" and table.by_rowid:
        return keyed[0].name
    return None


async def _values(
    writer: Writer, table: Table, names: Sequence[str], condition: str, keys: Sequence[object]
) -> dict[str, object] | None:
    listed = ", ".join(map(quoted, names))
    rows = await writer.fetch_all(
        f"SELECT {listed} FROM {quoted(table.name)} WHERE {condition}", keys
    )
    return dict(zip(names, rows[0], strict=True)) if len(rows) == 1 else None


async def insert(writer: Writer, table: Table, values: Mapping[str, object]) -> tuple[str, WayBack]:
    """Insert one row; what is left out gets its default."""
    _check_columns(table, values)
    key = ", ".join(map(quoted, table.key))
    names = ", ".join(map(quoted, values))
    marks = ", ".join("?" * len(values))
    what = f"({names}) VALUES ({marks})" if values else "DEFAULT VALUES"
    rows = await writer.fetch_all(
        f"INSERT INTO {quoted(table.name)} {what} RETURNING {key}", tuple(values.values())
    )
    made = key_text(list(rows[0]))
    condition, keys = by_key_text(table, made)
    still = "".join(f" AND {quoted(name)} IS ?" for name in values)
    return made, WayBack(
        table.name,
        f"DELETE FROM {quoted(table.name)} WHERE {condition}{still}",
        (*keys, *values.values()),
        "The new row is taken back.",
    )


async def delete(writer: Writer, table: Table, key: str, *, keep: bool) -> WayBack | None:
    """Delete one row; return the way back, or None where it is too large or others went with it."""
    condition, keys = by_key_text(table, key)
    stored = [column.name for column in table.columns if not column.generated]
    way_back: WayBack | None = None
    if keep:
        sizes = ", ".join(f"length({quoted(name)})" for name in stored)
        rows = await writer.fetch_all(
            f"SELECT {sizes} FROM {quoted(table.name)} WHERE {condition}", keys
        )
        if rows and sum(size or 0 for size in rows[0]) <= MOST_KEPT_BYTES:
            names = list(stored)
            if table.by_rowid and rowid_alias(table) is None:
                names = [table.key[0], *names]
            stored_as = ", ".join(exactly(quoted(name)) for name in names)
            (before,) = await writer.fetch_all(
                f"SELECT {stored_as} FROM {quoted(table.name)} WHERE {condition}", keys
            )
            marks = ", ".join(
                value
                if isinstance(value, str)
                else "CAST(? AS TEXT)"
                if isinstance(value, bytes)
                else "?"
                for value in before
            )
            way_back = WayBack(
                table.name,
                f"INSERT INTO {quoted(table.name)} ({', '.join(map(quoted, names))}) VALUES ({marks})",
                tuple(value for value in before if not isinstance(value, str)),
                "The row is back.",
            )
    changed = await writer.execute(f"DELETE FROM {quoted(table.name)} WHERE {condition}", keys)
    if changed != 1:
        raise UsageProblem("This row was gone already.", hint="Go back to the list.")
    return way_back


async def take_back(writer: Writer, way_back: WayBack) -> None:
    """Take a change back; raises UsageProblem if the row is no longer as the change left it."""
    changed = await writer.execute(way_back.sql, way_back.values)
    if changed != 1:
        raise UsageProblem(
            "The row was changed since, so it was not undone.",
            hint="Look at it and change it by hand.",
        )
