"""Carry out libSQL's `ALTER TABLE … ALTER COLUMN … TO …`, which SQLite does not know, as a rebuild.

libSQL puts the new definition into the text of the schema and leaves the rows as they are, even those
that it no longer allows. A rebuild gives the same schema, and its copy has every row fit the new
definition or fails. What libSQL does not alter is refused here too: a name, a key, a generated column.
"""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from local_mcp_gateway.schema.create_table import TableClauses, read_table
from local_mcp_gateway.schema.ddl import create_table
from local_mcp_gateway.schema.diff import Change
from local_mcp_gateway.schema.inspection import inspect
from local_mcp_gateway.schema.ordering import order_statements, temporary_name
from local_mcp_gateway.sql import fold, tokens

if TYPE_CHECKING:
    from local_mcp_gateway.schema.model import Schema, Table


class AlterColumn(NamedTuple):
    """One statement: the table, its column, and the definition that the column gets."""

    table: str
    column: str
    renamed: str
    """The name in the definition, which has to be the same."""
    definition: str


def read_alter_column(sql: str) -> AlterColumn | None:
    """Return what the statement alters; None for any other statement."""
    found = [token for token in tokens(sql) if token.text != ";"]
    words = [token.upper for token in found]
    at = 4 if words[3:4] == ["."] else 2
    if words[:2] != ["ALTER", "TABLE"] or words[at + 1 : at + 3] != ["ALTER", "COLUMN"]:
        return None
    if words[at + 4 : at + 5] != ["TO"] or len(found) < at + 6:
        return None
    depth = 0
    for word in words[at + 6 :]:
        depth += (word == "(") - (word == ")")
        if word == "," and depth == 0:  # one column is altered, and nothing besides
            return None
    new, last = found[at + 5], found[-1]
    definition = sql[new.start : last.start + len(last.text)]
    return AlterColumn(found[at].identifier, found[at + 3].identifier, new.identifier, definition)


def rebuild_for(connection: sqlite3.Connection, asked: AlterColumn) -> list[str]:
    """Return the statements that rebuild the table with the new definition; none if it has that already.

    The caller has begun a transaction, in which SQLite itself reads the new definition; that is undone.
    Raises sqlite3.Error for what libSQL refuses as well.
    """
    before = inspect(connection)
    table = before.tables.get(fold(asked.table))
    if table is None:
        known = fold(asked.table) in (*before.views, *before.virtual_tables)
        raise sqlite3.OperationalError(
            f"{asked.table} is not an ordinary table" if known else f"no such table: {asked.table}"
        )
    new = _with_definition(connection, before, table, asked)
    if new == table:
        return []
    after = replace(before, tables={**before.tables, table.key: new})
    return order_statements(before, after, [Change(table, new, None)], fills={})


def _with_definition(
    connection: sqlite3.Connection, schema: Schema, table: Table, asked: AlterColumn
) -> Table:
    clauses = read_table(table.sql)
    column = clauses.columns.get(fold(asked.column))
    if column is None:
        raise sqlite3.OperationalError(f"no such column: {asked.column}")
    if fold(asked.renamed) != fold(asked.column):
        raise sqlite3.OperationalError("ALTER COLUMN cannot rename a column, RENAME COLUMN can")
    end = column.start + len(column.sql)
    sql = table.sql[: column.start] + asked.definition + table.sql[end:]
    altered = replace(table, sql=sql)
    name = temporary_name(table, schema)
    connection.execute("SAVEPOINT alter_column")
    try:
        connection.execute(create_table(altered, name))
        found = inspect(connection).tables[fold(name)]
    finally:
        connection.execute("ROLLBACK TO alter_column")
        connection.execute("RELEASE alter_column")
    if _fixed(read_table(sql)) != _fixed(clauses):
        raise sqlite3.OperationalError(
            f"ALTER COLUMN cannot alter a PRIMARY KEY, UNIQUE or GENERATED of {asked.column}"
        )
    return replace(found, key=table.key, name=table.name, sql=sql)


def _fixed(clauses: TableClauses) -> tuple[object, ...]:
    """Return what libSQL does not let a column's new definition change."""
    generated = {key: column.generated for key, column in clauses.columns.items()}
    return clauses.primary, clauses.keys, clauses.autoincrement, generated
