"""A person's rows in two or more databases of one connection: which tables, and what tells rows apart."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

ROWID_NAMES = ("rowid", "_rowid_", "oid")

Columns = Mapping[str, int]
"""The stored columns of a table, each with its place in the primary key (0: none)."""


def tables(connection: sqlite3.Connection, schema: str) -> list[str]:
    """Return the tables that hold a person's rows: not SQLite's own, nor what is behind a virtual one."""
    found = connection.execute(
        "SELECT name FROM pragma_table_list WHERE schema = ? AND type IN ('table', 'virtual')",
        (schema,),
    )
    return sorted(str(name) for (name,) in found if not name.startswith("sqlite_"))


def columns(connection: sqlite3.Connection, schema: str, table: str) -> Columns:
    """Return the columns of one table, in their order; none where it is not there."""
    rows = connection.execute(f"PRAGMA {schema}.table_info({quoted(table)})")
    return {str(row[1]): int(row[5]) for row in rows}


def key(connection: sqlite3.Connection, table: str, found: Mapping[str, Columns]) -> list[str]:
    """Return what tells rows of this table apart in every one of these schemas, quoted.

    The primary key, where all declare the same and every row has one (SQLite lets most keys be NULL,
    in as many rows as there are); or SQLite's rowid; or all the columns that they share.
    """
    declared = [[name for name, place in each.items() if place] for each in found.values()]
    if declared[0] and all(names == declared[0] for names in declared):
        names = [quoted(name) for name in declared[0]]
        if not any(_has_null(connection, schema, table, names) for schema in found):
            return names
    taken = {name.lower() for each in found.values() for name in each}
    rowid = next((name for name in ROWID_NAMES if name not in taken), None)
    for schema in found if rowid else ():
        try:
            connection.execute(f"SELECT {rowid} FROM {schema}.{quoted(table)} LIMIT 0")
        except sqlite3.OperationalError:  # WITHOUT ROWID, with another key than elsewhere
            rowid = None
            break
    return [rowid] if rowid else [quoted(name) for name in shared(found)]


def _has_null(connection: sqlite3.Connection, schema: str, table: str, names: list[str]) -> bool:
    """Tell whether a row has no value in one of these; of columns that are NOT NULL no row is read."""
    condition = " OR ".join(f"{name} IS NULL" for name in names)
    sql = f"SELECT 1 FROM {schema}.{quoted(table)} WHERE {condition} LIMIT 1"
    return connection.execute(sql).fetchone() is not None


def shared(found: Mapping[str, Columns]) -> list[str]:
    """Return the columns that all of them have, in the order of the first."""
    first, *others = found.values()
    return [name for name in first if all(name in each for each in others)]


def same(names: list[str], one: str, other: str) -> str:
    """Return the condition that two rows, by their aliases, are the same one."""
    return " AND ".join(f"{one}.{name} IS {other}.{name}" for name in names)


def quoted(name: str) -> str:
    """Return the name as SQL takes it whatever is in it."""
    return '"' + name.replace('"', '""') + '"'
