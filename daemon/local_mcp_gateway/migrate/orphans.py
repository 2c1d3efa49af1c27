"""Rows whose parent is missing, told apart by the key that they name.

Rowids say nothing about which row it is once a table has been rebuilt, and a count nothing about which
rows it counted; what a child names does. `PRAGMA foreign_key_check` finds the rows, as SQLite compares
keys; only where it finds some are their values read.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from local_mcp_gateway.migrate.references import Reference, read_references
from local_mcp_gateway.migrate.tokens import fold, quoted

_ROWIDS = ("rowid", "_rowid_", "oid")


class Link(NamedTuple):
    """Columns of a child that name rows of a parent; all folded."""

    child: str
    columns: tuple[str, ...]
    parent: str


Value = tuple[str | bytes, ...]
"""The key that an orphan names; numbers as text, since a rebuild may change the column's type."""
Orphans = Mapping[Link, Counter[Value]]


def find_orphans(connection: sqlite3.Connection) -> Orphans:
    """Count the rows whose parent is missing by what they name."""
    found: dict[Link, Counter[Value]] = {}
    for reference, rowids in _violated(connection):
        values = found.setdefault(link_of(reference), Counter())
        values.update(value for _, value in _rows(connection, reference, has_rowid=rowids))
    return found


def locate(
    connection: sqlite3.Connection, link: Link, wanted: Counter[Value]
) -> list[tuple[int | None, Value]]:
    """Return (rowid, what it names) of the orphans of one link that name a wanted key."""
    return [
        row
        for reference, rowids in _violated(connection)
        if link_of(reference) == link
        for row in _rows(connection, reference, has_rowid=rowids)
        if row[1] in wanted
    ]


def link_of(reference: Reference) -> Link:
    """Return what stays of a foreign key when its number changes."""
    return Link(fold(reference.child), tuple(map(fold, reference.columns)), fold(reference.parent))


def _violated(connection: sqlite3.Connection) -> Iterator[tuple[Reference, bool]]:
    """Yield each foreign key that rows violate, and whether those rows have rowids."""
    found = dict.fromkeys(_check(connection))
    if not found:
        return
    known = {(one.child, one.number): one for one in read_references(connection)}
    for table, number, has_rowid in found:
        yield known[table, number], has_rowid


def _check(connection: sqlite3.Connection) -> Iterator[tuple[str, int, bool]]:
    """Yield (child, number of the key, rows have rowids) for each orphan.

    A table whose keys do not fit its parent at all cannot be checked.
    """
    try:
        for table, rowid, _, number in connection.execute("PRAGMA foreign_key_check"):
            yield table, number, rowid is not None
    except sqlite3.OperationalError:
        tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        for (child,) in tables.fetchall():
            with suppress(
                sqlite3.OperationalError
            ):  # "foreign key mismatch": every later write says it
                for table, rowid, _, number in connection.execute(
                    f"PRAGMA foreign_key_check({quoted(child)})"
                ):
                    yield table, number, rowid is not None


def _rows(
    connection: sqlite3.Connection, reference: Reference, *, has_rowid: bool
) -> Iterator[tuple[int | None, Value]]:
    columns = ", ".join(f"c.{quoted(column)}" for column in reference.columns)
    rowid = _rowid_of(connection, reference.child) if has_rowid else None
    if rowid is not None:
        rows = connection.execute(
            f"SELECT f.rowid, {columns} FROM pragma_foreign_key_check(?) AS f"
            f" JOIN main.{quoted(reference.child)} AS c ON c.{rowid} = f.rowid WHERE f.fkid = ?",
            (reference.child, reference.number),
        )
    else:
        rows = connection.execute(_without_rowid(connection, reference, columns))
    for number, *values in rows:
        yield number, tuple(map(_text, values))


def _without_rowid(connection: sqlite3.Connection, reference: Reference, columns: str) -> str:
    """Return the query for the orphans of a table whose rows SQLite cannot point out by rowid."""
    named = " AND ".join(f"c.{quoted(column)} IS NOT NULL" for column in reference.columns)
    sql = f"SELECT NULL, {columns} FROM main.{quoted(reference.child)} AS c WHERE {named}"
    known = connection.execute(
        "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND lower(name) = ?",
        (fold(reference.parent),),
    ).fetchone()
    if known is None or len(reference.keys) != len(reference.columns):
        return sql
    same = " AND ".join(  # + takes the child's affinity away: the parent's counts
        f"p.{quoted(key)} = +c.{quoted(column)}"
        for key, column in zip(reference.keys, reference.columns, strict=True)
    )
    return f"{sql} AND NOT EXISTS (SELECT 1 FROM main.{quoted(reference.parent)} AS p WHERE {same})"


def _rowid_of(connection: sqlite3.Connection, table: str) -> str | None:
    """Return a name of the rowid that no column of the table has taken."""
    taken = {
        fold(name)
        for (name,) in connection.execute("SELECT name FROM pragma_table_xinfo(?)", (table,))
    }
    return next((name for name in _ROWIDS if name not in taken), None)


def _text(value: object) -> str | bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
