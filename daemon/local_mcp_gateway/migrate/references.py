"""The foreign keys of a database, as far as rows hang on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from local_mcp_gateway.migrate.tokens import fold

if TYPE_CHECKING:
    import sqlite3

_KEYS = """SELECT m.name, k.id, k."table", k."from", k."to", k.on_delete
    FROM sqlite_schema AS m JOIN pragma_foreign_key_list(m.name) AS k
    WHERE m.type = 'table' ORDER BY m.rowid, k.id, k.seq"""


class Reference(NamedTuple):
    """One foreign key: the columns of a child, and the key of the parent that they name."""

    child: str
    columns: tuple[str, ...]
    parent: str
    keys: tuple[str, ...]
    """As long as `columns`, unless the parent is missing or has no such key; names as written."""
    on_delete: str
    number: int
    """As `PRAGMA foreign_key_check` counts; not the same after the child was altered."""


def read_references(connection: sqlite3.Connection) -> tuple[Reference, ...]:
    """Return every foreign key of the schema."""
    found: dict[tuple[str, int], list[tuple[str, str, str | None, str]]] = {}
    for child, number, *rest in connection.execute(_KEYS).fetchall():
        found.setdefault((child, number), []).append((rest[0], rest[1], rest[2], rest[3]))
    return tuple(
        Reference(
            child,
            tuple(row[1] for row in rows),
            rows[0][0],
            tuple(row[2] for row in rows if row[2] is not None)
            or _primary_key(connection, rows[0][0]),
            rows[0][3],
            number,
        )
        for (child, number), rows in found.items()
    )


def by_parent(references: tuple[Reference, ...]) -> dict[str, list[Reference]]:
    """Return the foreign keys by the folded name of the table that they name."""
    grouped: dict[str, list[Reference]] = {}
    for reference in references:
        grouped.setdefault(fold(reference.parent), []).append(reference)
    return grouped


def _primary_key(connection: sqlite3.Connection, table: str) -> tuple[str, ...]:
    return tuple(
        name
        for (name,) in connection.execute(
            "SELECT name FROM pragma_table_info(?) WHERE pk ORDER BY pk", (table,)
        )
    )
