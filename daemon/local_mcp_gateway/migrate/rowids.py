"""Find what depends on the rowids of a table.

Unless a column is the rowid, SQLite numbers the rows itself, and a copy that does not name the rowid
numbers them again. Full-text and r-tree tables, and triggers and views that use `rowid`, would then refer
to other rows.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING

from local_mcp_gateway.migrate.contents import shape_of
from local_mcp_gateway.migrate.verify import Object, read_objects
from local_mcp_gateway.schema import is_users, read_code, words
from local_mcp_gateway.sql import fold, normal_tokens, quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


_ROWIDS = frozenset({"rowid", "_rowid_", "oid"})
_SAMPLE = 1_000


def rowid_users(
    connection: sqlite3.Connection, objects: Sequence[Object], table: str, now: str
) -> tuple[str, ...]:
    """Return what depends on this table's rowids: virtual tables, triggers and views.

    `objects` name it `table`; in the database its present name is `now`. If its rowid is a column, what
    names that column keeps to it, whatever becomes of the rowids.
    """
    hidden = shape_of(connection, now).key is None
    code = [one for one in objects if one.kind in ("trigger", "view")]
    found = [
        one.name
        for one in code
        if (hidden or fold(one.table) == fold(table)) and _says_rowid(one, table)
    ]
    for virtual in objects:
        if virtual.is_virtual:
            is_over = read_code(virtual.name, virtual.sql)
            if is_over.content == fold(table):
                by_rowid = is_over.content_rowid in (None, *_ROWIDS)
            else:
                by_rowid = (
                    hidden
                    and is_over.content is None
                    and not _tied(virtual, code)
                    and _fits(connection, virtual, now)
                )
            if by_rowid:
                found.append(virtual.name)
    return tuple(found)


def _says_rowid(code: Object, table: str) -> bool:
    """Return whether a trigger on the table uses NEW.rowid or OLD.rowid, or other code names both."""
    if fold(code.table) != fold(table):
        named = words(code.sql)
        return fold(table) in named and bool(named & _ROWIDS)
    said = [token[1].strip('"') for token in normal_tokens(code.sql)]
    triples = zip(said, said[1:], said[2:], strict=False)
    return any(a in ("new", "old") and dot == "." and c in _ROWIDS for a, dot, c in triples)


def _tied(virtual: Object, code: Iterable[Object]) -> bool:
    """Return whether a trigger or view refers to it: then that says whose rowids it depends on."""
    return any(fold(virtual.name) in words(one.sql) for one in code)


def _fits(connection: sqlite3.Connection, virtual: Object, table: str) -> bool:
    """Return whether it has rows, and each of the first ones has its counterpart in the table."""
    if not is_users(virtual.name):
        return False
    with suppress(sqlite3.Error):  # its module is not available, or has no rowid
        rows, missing = connection.execute(
            f"SELECT count(*), count(*) FILTER (WHERE r NOT IN (SELECT rowid FROM main.{quote(table)}))"
            f" FROM (SELECT rowid AS r FROM main.{quote(virtual.name)} LIMIT {_SAMPLE})"
        ).fetchone()
        return bool(rows) and not missing
    return False


def looked_after(users: Iterable[str], statements: Iterable[str]) -> Iterator[str]:
    """Yield those that a file writes itself: its author has handled them."""
    written: set[str] = set()
    for statement in statements:
        head = [token[1] for token in normal_tokens(statement)[:3]]
        if "trigger" not in head and "view" not in head:
            written |= words(statement)
    yield from (user for user in users if fold(user) in written)


def renumbered_by_vacuum(
    connection: sqlite3.Connection,
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield (table, dependent objects) for each table whose rowids a VACUUM changes.

    VACUUM renumbers the rows of a table without INTEGER PRIMARY KEY and without any index from 1.
    """
    objects = read_objects(connection)
    for one in objects:
        if one.kind != "table" or one.is_virtual:
            continue
        shape = shape_of(connection, one.name)
        indexed = connection.execute("SELECT 1 FROM pragma_index_list(?)", (one.name,)).fetchone()
        if shape.rowid is None or shape.key is not None or indexed:
            continue
        (same,) = connection.execute(
            f"SELECT count(*) IS coalesce(max({shape.rowid}), 0) AND coalesce(min({shape.rowid}), 1) IS 1"
            f" FROM main.{quote(one.name)}"
        ).fetchone()
        users = () if same else rowid_users(connection, objects, one.name, one.name)
        if users:
            yield one.name, users
