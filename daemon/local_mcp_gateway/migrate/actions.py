"""The actions of foreign keys for a migration that relies on them.

Migrations run with foreign keys off, since a rebuild drops its old table and would take the children
with it. A file that deletes a parent's rows, drops nothing, and leaves it to ON DELETE to look after
the children would leave orphans then. So after such a file each row that it orphaned gets the action
that its own foreign key asks for: CASCADE, SET NULL or SET DEFAULT, until nothing is left to do.
RESTRICT and NO ACTION have none: `verify` refuses those rows. It also refuses where the parent was
dropped, or where the file itself switched foreign keys off.

Rows that were orphans before stay as they are.
"""

from __future__ import annotations

import re
import sqlite3
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_REMOVES_ROWS = re.compile(r"\bDELETE\s+FROM\b", re.IGNORECASE)
_SWITCHES_OFF = re.compile(r"\bPRAGMA\s+foreign_keys\s*=\s*(?:OFF|0|FALSE|NO)\b", re.IGNORECASE)
_MOST_ORPHANS_BEFORE = 10_000


class Orphan(NamedTuple):
    """One row of `PRAGMA foreign_key_check`."""

    table: str
    rowid: int | None
    parent: str
    key: int


class ForeignKey(NamedTuple):
    """What one foreign key of a child asks for."""

    columns: tuple[str, ...]
    on_delete: str


def orphans_before(connection: sqlite3.Connection, sql: str) -> frozenset[Orphan] | None:
    """Return the orphans that there are, if the file may make more; None: do nothing afterwards."""
    if _REMOVES_ROWS.search(sql) is None or _SWITCHES_OFF.search(sql) is not None:
        return None
    found: set[Orphan] = set()
    for orphan in _check(connection):
        found.add(orphan)
        if len(found) > _MOST_ORPHANS_BEFORE:
            return None
    return frozenset(found)


def take_actions(
    connection: sqlite3.Connection, before: frozenset[Orphan], parents: Iterable[str]
) -> None:
    """Run the ON DELETE actions for what was orphaned since, by rows deleted from `parents`."""
    deleted_from = {name.lower() for name in parents}
    keys: dict[str, dict[int, ForeignKey]] = {}
    while True:
        orphans = [
            orphan
            for orphan in _check(connection)
            if orphan not in before and orphan.parent.lower() in deleted_from
        ]
        acted = False
        for orphan in orphans:
            if orphan.table not in keys:
                keys[orphan.table] = _foreign_keys(connection, orphan.table)
            key = keys[orphan.table].get(orphan.key)
            if key is None or orphan.rowid is None:
                continue  # a table without rowid gives no row to act on
            if _act(connection, orphan, key):
                acted = True
                if key.on_delete == "CASCADE":
                    deleted_from.add(orphan.table.lower())
        if not acted:
            return


def _act(connection: sqlite3.Connection, orphan: Orphan, key: ForeignKey) -> bool:
    table = _quoted(orphan.table)
    match key.on_delete:
        case "CASCADE":
            done = connection.execute(f"DELETE FROM {table} WHERE rowid = ?", (orphan.rowid,))
        case "SET NULL":
            columns = ", ".join(f"{_quoted(column)} = NULL" for column in key.columns)
            done = connection.execute(
                f"UPDATE {table} SET {columns} WHERE rowid = ?", (orphan.rowid,)
            )
        case "SET DEFAULT":
            defaults = {
                row[1]: row[4]
                for row in connection.execute(f"PRAGMA table_info({table})").fetchall()
            }
            columns = ", ".join(
                f"{_quoted(column)} = ({defaults.get(column) or 'NULL'})" for column in key.columns
            )
            done = connection.execute(
                f"UPDATE {table} SET {columns} WHERE rowid = ? AND ({', '.join(map(_quoted, key.columns))})"
                f" IS NOT ({', '.join(str(defaults.get(column) or 'NULL') for column in key.columns)})",
                (orphan.rowid,),
            )
        case _:
            return False
    return done.rowcount > 0


def _foreign_keys(connection: sqlite3.Connection, table: str) -> dict[int, ForeignKey]:
    found: dict[int, ForeignKey] = {}
    for number, _, _, column, _, _, on_delete, _ in connection.execute(
        f"PRAGMA foreign_key_list({_quoted(table)})"
    ).fetchall():
        before = found[number].columns if number in found else ()
        found[number] = ForeignKey((*before, column), on_delete)
    return found


def _check(connection: sqlite3.Connection) -> Iterator[Orphan]:
    """Yield every orphan; none where some key does not fit its parent at all, which cannot be checked."""
    try:
        yield from map(Orphan._make, connection.execute("PRAGMA foreign_key_check").fetchall())
    except sqlite3.OperationalError:
        return


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
