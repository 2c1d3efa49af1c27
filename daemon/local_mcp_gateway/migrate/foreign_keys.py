"""Read the foreign keys of a schema, and find the rows whose parent is missing: orphans.

Older orphans are not a migration's fault, only new ones are: rows that refer to a missing key to which
fewer rows referred before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, NamedTuple

from local_mcp_gateway.errors import VerificationFailed
from local_mcp_gateway.formats import counted
from local_mcp_gateway.sql import fold, quote

if TYPE_CHECKING:
    import sqlite3

_NAMED_ROWS = 5
_ROWIDS = ("rowid", "_rowid_", "oid")


_KEYS = """SELECT m.name, k.id, k."table", k."from", k."to", k.on_delete
    FROM sqlite_schema AS m JOIN pragma_foreign_key_list(m.name) AS k
    WHERE m.type = 'table' ORDER BY m.rowid, k.id, k.seq"""


class Reference(NamedTuple):
    """One foreign key: the columns of a child, and the parent key that they refer to."""

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


def _primary_key(connection: sqlite3.Connection, table: str) -> tuple[str, ...]:
    return tuple(
        name
        for (name,) in connection.execute(
            "SELECT name FROM pragma_table_info(?) WHERE pk ORDER BY pk", (table,)
        )
    )


class Link(NamedTuple):
    """Columns of a child that refer to a parent; all folded."""

    child: str
    columns: tuple[str, ...]
    parent: str


Violated = tuple[str, int, bool]
"""A child, the number of its foreign key, and whether the violating rows have rowids."""
Value = tuple[str | bytes, ...]
"""The key that an orphan refers to; numbers as text, since a rebuild may change the column's type."""
Orphans = Mapping[Link, Counter[Value]]


def _link(reference: Reference) -> Link:
    """Return what identifies a foreign key when its number changes."""
    return Link(fold(reference.child), tuple(map(fold, reference.columns)), fold(reference.parent))


def count_orphans(connection: sqlite3.Connection, found: Collection[Violated]) -> Orphans:
    """Count the violating rows by the key that they refer to."""
    counts: dict[Link, Counter[Value]] = {}
    for reference, has_rowid in _with_references(connection, found):
        values = counts.setdefault(_link(reference), Counter())
        values.update(value for _, value in _rows(connection, reference, has_rowid=has_rowid))
    return counts


def refuse_new_orphans(
    connection: sqlite3.Connection,
    found: Collection[Violated],
    before: Orphans,
    now_called: Mapping[str, str],
    tags: Sequence[str],
) -> None:
    """Raise VerificationFailed if more rows than before refer to a missing key.

    `now_called`: the present names of the tables that there were before; `tags`: of what has run since.
    """
    was_called = {now: was for was, now in now_called.items()}
    links = {_link(reference) for reference in read_references(connection)}
    for link, values in count_orphans(connection, found).items():
        new = values - _known(before, link, links, was_called)
        if not new:
            continue
        count = new.total()
        rows = sorted(
            rowid
            for reference, has_rowid in _with_references(connection, found)
            if _link(reference) == link
            for rowid, value in _rows(connection, reference, has_rowid=has_rowid)
            if rowid is not None and value in new
        )
        named = ", ".join(map(str, rows[:_NAMED_ROWS]))
        which = f" (rowid {named}{'…' if count > _NAMED_ROWS else ''})" if rows else ""
        raise VerificationFailed(
            f"{counted(count, 'row')} of {link.child}{which} would point to rows of"
            f" {link.parent} that no longer exist.",
            hint=f"Delete or fix those rows of {link.child} in the same migration; if it relies on ON DELETE"
            " or ON UPDATE actions, give it the first line `-- guard: foreign-keys=on`.",
            table=link.child,
            parent=link.parent,
            rows=rows[:_NAMED_ROWS],
            tags=list(tags),
        )


def _with_references(
    connection: sqlite3.Connection, found: Collection[Violated]
) -> Iterator[tuple[Reference, bool]]:
    known = {(one.child, one.number): one for one in read_references(connection)}
    for child, number, has_rowid in found:
        yield known[child, number], has_rowid


def _rows(
    connection: sqlite3.Connection, reference: Reference, *, has_rowid: bool
) -> Iterator[tuple[int | None, Value]]:
    columns = ", ".join(f"c.{quote(column)}" for column in reference.columns)
    rowid = _rowid_of(connection, reference.child) if has_rowid else None
    if rowid is not None:
        rows = connection.execute(
            f"SELECT f.rowid, {columns} FROM pragma_foreign_key_check(?) AS f"
            f" JOIN main.{quote(reference.child)} AS c ON c.{rowid} = f.rowid WHERE f.fkid = ?",
            (reference.child, reference.number),
        )
    else:
        rows = connection.execute(_without_rowid(connection, reference, columns))
    for number, *values in rows:
        yield number, tuple(map(_text, values))


def _without_rowid(connection: sqlite3.Connection, reference: Reference, columns: str) -> str:
    """Return the query for the orphans of a table without rowids."""
    named = " AND ".join(f"c.{quote(column)} IS NOT NULL" for column in reference.columns)
    sql = f"SELECT NULL, {columns} FROM main.{quote(reference.child)} AS c WHERE {named}"
    known = connection.execute(
        "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND lower(name) = ?",
        (fold(reference.parent),),
    ).fetchone()
    if known is None:
        return sql
    same = " AND ".join(  # + removes the child's affinity: the parent's counts
        f"p.{quote(key)} = +c.{quote(column)}"
        for key, column in zip(reference.keys, reference.columns, strict=True)
    )
    return f"{sql} AND NOT EXISTS (SELECT 1 FROM main.{quote(reference.parent)} AS p WHERE {same})"


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


def _known(
    before: Orphans, link: Link, links: AbstractSet[Link], was_called: Mapping[str, str]
) -> Counter[Value]:
    """Return the orphans that a link had before; if its columns are new, those of removed links."""
    child = was_called.get(link.child, link.child)
    parent = was_called.get(link.parent, link.parent)
    same = before.get(Link(child, link.columns, parent))
    if same is not None:
        return same
    known: Counter[Value] = Counter()
    for old, values in before.items():
        gone = Link(link.child, old.columns, link.parent) not in links
        if gone and (old.child, old.parent) == (child, parent):
            known += values
    return known
