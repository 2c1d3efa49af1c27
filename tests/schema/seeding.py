"""Rows for every table of a schema, by trying: SQLite says whether they are valid."""

from __future__ import annotations

import re
import sqlite3
from typing import TYPE_CHECKING

from local_mcp_gateway.schema.create_table import affinity
from local_mcp_gateway.schema.ordering import parents_first
from local_mcp_gateway.sql import quote

if TYPE_CHECKING:
    from local_mcp_gateway.schema import Schema
    from local_mcp_gateway.schema.model import Column, Table

ROWS = 3
LITERAL = re.compile(r"'(?:[^']|'')*'|\b\d+\b")


def seed(connection: sqlite3.Connection, schema: Schema) -> list[str]:
    """Put rows into every table, parents first; return the tables that took none."""
    connection.execute("PRAGMA foreign_keys = ON")
    triggers = [code.sql for code in schema.triggers.values()]
    for code in schema.triggers.values():
        connection.execute(f"DROP TRIGGER {quote(code.name)}")
    empty = []
    for table in parents_first(schema, schema.tables.keys()):
        if not _rows(connection, table) and not _has_rows(connection, table):
            # Two tables that reference each other, or a parent that is not there: dangling rows are
            # rows too, and a plan may not lose them either.
            connection.execute("PRAGMA foreign_keys = OFF")
            if not _rows(connection, table):
                empty.append(table.name)
            connection.execute("PRAGMA foreign_keys = ON")
    for sql in triggers:
        connection.execute(sql)
    connection.execute("PRAGMA foreign_keys = OFF")
    return empty


def _has_rows(connection: sqlite3.Connection, table: Table) -> bool:
    return connection.execute(f"SELECT 1 FROM {quote(table.name)}").fetchone() is not None


def _rows(connection: sqlite3.Connection, table: Table) -> int:
    return sum(_insert(connection, table, number) for number in range(1, ROWS + 1))


def _insert(connection: sqlite3.Connection, table: Table, number: int) -> bool:
    columns = [column for column in table.columns.values() if column.generated is None]
    names = ", ".join(quote(column.name) for column in columns)
    marks = ", ".join("?" for _ in columns)
    for way in range(8):
        values = [_value(connection, table, column, number, way) for column in columns]
        try:
            connection.execute(
                f"INSERT INTO {quote(table.name)} ({names}) VALUES ({marks})", values
            )
        except sqlite3.Error:
            continue
        return True
    return False


def _value(
    connection: sqlite3.Connection, table: Table, column: Column, number: int, way: int
) -> object:
    """Return a value for one column; another `way` is another guess at what its constraints want."""
    for link in table.foreign_keys:
        if column.key in link.columns:
            target = link.to[link.columns.index(column.key)] if link.to else "rowid"
            optional = way >= 4 and not column.not_null
            if optional:
                return None
            found = _reference(connection, link.table, target, number)
            if found is not None or not column.not_null:
                return found
    if way % 4 >= 1 and (choices := _choices(table, column)):
        return choices[(number + way // 4) % len(choices)]
    kind = affinity(column.type.normal)
    if kind == "integer" or (kind == "numeric" and way % 2 == 0):
        return number if way < 6 else 0
    if kind in {"real", "numeric"}:
        return number + 0.5
    if kind == "blob" and way % 2 == 0:
        return f"{column.key} {number}".encode()
    return f'{{"{column.key}": {number}}}' if way % 4 < 2 else f"{column.key} {number}"


def _reference(connection: sqlite3.Connection, table: str, column: str, number: int) -> object:
    """Return a key of the parent, or nothing where the schema references a table it does not have."""
    try:
        rows = connection.execute(
            f"SELECT {quote(column)} FROM {quote(table)} ORDER BY 1 LIMIT {ROWS}"
        ).fetchall()
    except sqlite3.Error:
        return None
    return rows[(number - 1) % len(rows)][0] if rows else None


def _choices(table: Table, column: Column) -> list[str]:
    """Return the literals of the first CHECK that names the column and has any."""
    for check in table.checks:
        if column.key in check.expression.normal.replace('"', "").split():
            found = [text.strip("'") for text in LITERAL.findall(check.expression.text)]
            if found:
                return found
    return []
