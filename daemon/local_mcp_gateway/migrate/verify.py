"""Verify migrations before COMMIT: no row lost that no statement deleted, no new orphan, nothing broken.

A rebuild under the wrong settings deletes the children of a table by its cascades, and
`foreign_key_check` is still empty afterwards; so rows are counted, before and after. Older orphans are
not the migration's fault, only new ones are: rows that refer to a missing key to which fewer rows
referred before.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from local_mcp_gateway.errors import VerificationFailed
from local_mcp_gateway.formats import counted
from local_mcp_gateway.migrate.history import GUARD_TABLES
from local_mcp_gateway.migrate.lineage import Fate, Lineage
from local_mcp_gateway.migrate.sequences import read_sequences
from local_mcp_gateway.migrate.statements import accepted
from local_mcp_gateway.sql import fold, quote, quote_all

if TYPE_CHECKING:
    from local_mcp_gateway.migrate.apply import Step
    from local_mcp_gateway.migrate.rebuilds import DataChange
    from local_mcp_gateway.migrate.referential_actions import Reference


_ROWIDS = ("rowid", "_rowid_", "oid")


class Link(NamedTuple):
    """Columns of a child that refer to a parent; all folded."""

    child: str
    columns: tuple[str, ...]
    parent: str


Value = tuple[str | bytes, ...]
"""The key that an orphan refers to; numbers as text, since a rebuild may change the column's type."""
Orphans = Mapping[Link, Counter[Value]]


def find_foreign_key_violations(connection: sqlite3.Connection) -> Orphans:
    """Count the rows whose parent is missing, by the key that they refer to."""
    found: dict[Link, Counter[Value]] = {}
    for reference, rowids in _violated(connection):
        values = found.setdefault(link_of(reference), Counter())
        values.update(value for _, value in _rows(connection, reference, has_rowid=rowids))
    return found


def locate(
    connection: sqlite3.Connection, link: Link, wanted: Counter[Value]
) -> list[tuple[int | None, Value]]:
    """Return (rowid, key) of the orphans of one link that refer to a wanted key."""
    return [
        row
        for reference, rowids in _violated(connection)
        if link_of(reference) == link
        for row in _rows(connection, reference, has_rowid=rowids)
        if row[1] in wanted
    ]


def link_of(reference: Reference) -> Link:
    """Return what identifies a foreign key when its number changes."""
    return Link(fold(reference.child), tuple(map(fold, reference.columns)), fold(reference.parent))


def _violated(connection: sqlite3.Connection) -> Iterator[tuple[Reference, bool]]:
    """Yield each violated foreign key, and whether the violating rows have rowids."""
    found = dict.fromkeys(_check(connection))
    if not found:
        return
    from local_mcp_gateway.migrate.referential_actions import read_references

    known = {(one.child, one.number): one for one in read_references(connection)}
    for table, number, has_rowid in found:
        yield known[table, number], has_rowid


def _check(connection: sqlite3.Connection) -> Iterator[tuple[str, int, bool]]:
    """Yield (child, number of the key, rows have rowids) for each orphan.

    A table whose foreign keys do not match its parent at all cannot be checked.
    """
    try:
        for table, rowid, _, number in connection.execute("PRAGMA foreign_key_check"):
            yield table, number, rowid is not None
    except sqlite3.OperationalError:
        tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        for (child,) in tables.fetchall():
            with suppress(
                sqlite3.OperationalError
            ):  # "foreign key mismatch": every later write reports it
                for table, rowid, _, number in connection.execute(
                    f"PRAGMA foreign_key_check({quote(child)})"
                ):
                    yield table, number, rowid is not None


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


_NAMED_ROWS = 5
_OBJECTS = (
    "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid"
)


class Object(NamedTuple):
    """A row of `sqlite_schema` that has SQL text."""

    kind: str
    """table, index, view or trigger"""
    name: str
    table: str
    """The table that an index or trigger is on; else its own name."""
    sql: str

    @property
    def is_virtual(self) -> bool:
        """Return whether it is a virtual table."""
        return self.sql[:14].upper() == "CREATE VIRTUAL"


def read_objects(connection: sqlite3.Connection) -> tuple[Object, ...]:
    """Return every schema object with SQL text, in the order of creation; includes uncommitted changes."""
    return tuple(Object(*row) for row in connection.execute(_OBJECTS))


class RowCounts(NamedTuple):
    """The row count of each table, names folded, and the orphans."""

    rows: Mapping[str, int]
    orphans: Orphans
    objects: tuple[Object, ...]
    """The schema, as texts."""
    sequences: Mapping[str, int]
    """The largest rowid that each AUTOINCREMENT table ever had."""

    @property
    def is_new(self) -> bool:
        """Return whether there is no table yet, virtual ones included."""
        return not self.rows and not any(one.is_virtual for one in self.objects)


class _CountedWhenAsked(Mapping[str, int]):
    """The row counts of a database that nobody writes to, each read when it is first asked for."""

    def __init__(self, untouched: Callable[[], sqlite3.Connection], tables: Sequence[str]) -> None:
        self._untouched = untouched
        self._counts: dict[str, int | None] = dict.fromkeys(tables)

    def __getitem__(self, table: str) -> int:
        count = self._counts[table]
        if count is None:
            count = self._counts[table] = _count(self._untouched(), [table])[table]
        return count

    def __iter__(self) -> Iterator[str]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)


def count_rows(
    connection: sqlite3.Connection, untouched: Callable[[], sqlite3.Connection] | None = None
) -> RowCounts:
    """Count the rows of every table and the existing orphans.

    `untouched` opens a copy of the same content: rows are counted there, and only if they are asked for,
    since each count reads a whole table.
    """
    tables = _tables(connection)
    return RowCounts(
        _CountedWhenAsked(untouched, tables) if untouched else _count(connection, tables),
        find_foreign_key_violations(connection),
        read_objects(connection),
        read_sequences(connection),
    )


def verify(
    connection: sqlite3.Connection, before: RowCounts, steps: Sequence[Step]
) -> tuple[DataChange, ...]:
    """Raise VerificationFailed if rows were lost or orphaned; return what was deleted on purpose.

    A table that SQLite reported no write to, by a statement, a trigger or a foreign key, has its rows.
    Runs inside the open transaction; the caller rolls back.
    """
    tables = set(_tables(connection))
    changed = [change for step in steps for change in step.changes]
    if not changed and _has_its_rows(connection, before, tables, steps):
        _refuse_new_orphans(connection, before, {}, steps)  # every table is what it was
        return ()
    from local_mcp_gateway.migrate.rebuilds import DataChange, lost_rows

    fates = Lineage(before.rows, changed).fates()
    now_called = {name: fates[name].now or name for name in before.rows}
    suspects = _suspects(fates, tables, steps)
    rows = _count(connection, tables & {*suspects, *(now_called[name] for name in suspects)})
    accepts = {one for step in steps for one in step.accepts}
    changes: list[DataChange] = []
    for name in suspects:
        fate = fates[name]
        count = before.rows[name]
        after = rows.get(fate.now if fate.now in tables else name, 0)
        if after >= count:
            continue
        if not fate.dropped and not fate.deleted_from:
            raise VerificationFailed(
                f"Table {name} had {counted(count, 'row')} and has {after} after the migrations, though none of"
                " their statements deletes from it or drops it.",
                hint="Look for INSERT OR REPLACE or REPLACE INTO, which remove rows that are in their"
                " way; write a DELETE if the loss is meant.",
                table=name,
                before=count,
                after=after,
            )
        tag = _tag_of(name, fate, steps)
        if fate.rebuilt and not fate.deleted_from and accepted("loses_rows", name) not in accepts:
            raise lost_rows(name, count, after, tag)
        message = f"Table {name} goes from {counted(count, 'row')} to {after}."
        changes.append(DataChange("deletes_data", name, message, tag))
    _refuse_lost_parents(connection, tables, now_called, steps)
    _refuse_new_orphans(connection, before, now_called, steps)
    return tuple(changes)


def _suspects(
    fates: Mapping[str, Fate], tables: AbstractSet[str], steps: Sequence[Step]
) -> list[str]:
    """Return the tables that were dropped or written to; all of them where nobody watched that."""
    written = _written(steps)
    if written is None:
        return list(fates)
    return [
        name
        for name, fate in fates.items()
        if fate.dropped
        or fate.deleted_from
        or fate.now not in tables
        or not written.isdisjoint((name, fate.last_name))
    ]


def _has_its_rows(
    connection: sqlite3.Connection,
    before: RowCounts,
    tables: AbstractSet[str],
    steps: Sequence[Step],
) -> bool:
    """Return whether every table that was there before still is, with no fewer rows."""
    if not before.rows.keys() <= tables:
        return False
    written = _written(steps)
    names = [name for name in before.rows if written is None or name in written]
    return not names or all(
        after >= before.rows[name] for name, after in _count(connection, names).items()
    )


def _written(steps: Sequence[Step]) -> set[str] | None:
    """Return the tables that SQLite reported a write to; None where nobody watched that."""
    if not steps or any(step.written is None for step in steps):
        return None
    return {name for step in steps for name in step.written or ()}


def verify_dependents(
    connection: sqlite3.Connection, before: RowCounts, steps: Sequence[Step], *, lost: bool = True
) -> None:
    """Raise VerificationFailed if something of the schema that could run before cannot run now.

    With `lost`, also for triggers and indexes that were dropped although no statement names them. A
    schema that was verified once (in the rehearsal) need not be again.
    """
    changed = [change for step in steps for change in step.changes]
    lost = lost and (
        any(change.what in ("drop", "rename") for change in changed)
        or not _own_objects(before.objects) <= _own_objects(read_objects(connection))
    )
    if not lost and not _has_dependents(connection):
        return
    from local_mcp_gateway.migrate.dependents import refuse_broken, refuse_lost_dependents

    lineage = Lineage(before.rows, changed)
    if lost:
        refuse_lost_dependents(connection, before.objects, steps, lineage)
    refuse_broken(connection, before.objects, steps, lineage)


def _own_objects(objects: Sequence[Object]) -> set[Object]:
    """Return the triggers and indexes among them."""
    return {one for one in objects if one.kind in ("trigger", "index")}


def _has_dependents(connection: sqlite3.Connection) -> bool:
    """Return whether there is anything that could be broken: see `broken`."""
    found = connection.execute(
        "SELECT 1 FROM sqlite_schema WHERE type IN ('view', 'trigger') OR sql LIKE 'CREATE VIRTUAL%'"
        " UNION ALL SELECT 1 FROM"
        " sqlite_schema AS m JOIN pragma_foreign_key_list(m.name) WHERE m.type = 'table' LIMIT 1"
    ).fetchone()
    return found is not None


def _tag_of(name: str, fate: Fate, steps: Sequence[Step]) -> str:
    """Return the last migration that dropped a table of these names, or deleted from it."""
    names = {name, fate.last_name, fate.now}
    return next(
        (
            step.tag
            for step in reversed(steps)
            if any(c.what in ("drop", "delete") and fold(c.table) in names for c in step.changes)
        ),
        steps[-1].tag,
    )


def _refuse_lost_parents(
    connection: sqlite3.Connection,
    tables: AbstractSet[str],
    now_called: Mapping[str, str],
    steps: Sequence[Step],
) -> None:
    """Refuse a reference that a rename moved to a table that was dropped then.

    Only of tables that existed before: a later migration may fix an old folder's mistake.
    """
    renamed_to = {fold(c.to) for step in steps for c in step.changes if c.what == "rename"}
    if not renamed_to or not now_called:
        return
    from local_mcp_gateway.migrate.referential_actions import read_references

    old = set(now_called.values())
    for reference in read_references(connection):
        child, parent = fold(reference.child), fold(reference.parent)
        if child in old and parent in renamed_to and parent not in tables:
            raise VerificationFailed(
                f"Table {child} would reference {parent}, which no longer exists: SQLite carried the"
                " reference along when the table was renamed.",
                hint="Make the new table under another name, copy the rows, drop the old table, and rename"
                " the new one; or write PRAGMA legacy_alter_table=ON before the renaming.",
                table=child,
                parent=parent,
            )


def _refuse_new_orphans(
    connection: sqlite3.Connection,
    before: RowCounts,
    now_called: Mapping[str, str],
    steps: Sequence[Step],
) -> None:
    found = find_foreign_key_violations(connection)
    if not found:
        return
    from local_mcp_gateway.migrate.referential_actions import read_references

    was_called = {now: was for was, now in now_called.items()}
    links = {link_of(reference) for reference in read_references(connection)}
    for link, values in found.items():
        new = values - _known(before.orphans, link, links, was_called)
        if not new:
            continue
        count = new.total()
        rows = [row for row, _ in locate(connection, link, new) if row is not None]
        named = ", ".join(map(str, sorted(rows)[:_NAMED_ROWS]))
        which = f" (rowid {named}{'…' if count > _NAMED_ROWS else ''})" if rows else ""
        raise VerificationFailed(
            f"{counted(count, 'row')} of {link.child}{which} would point to rows of"
            f" {link.parent} that no longer exist.",
            hint=f"Delete or fix those rows of {link.child} in the same migration; if it relies on ON DELETE"
            " or ON UPDATE actions, give it the first line `-- guard: foreign-keys=on`.",
            table=link.child,
            parent=link.parent,
            rows=sorted(rows)[:_NAMED_ROWS],
            tags=[step.tag for step in steps],
        )


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


def _tables(connection: sqlite3.Connection) -> list[str]:
    """Return the ordinary tables, folded: shadow tables are left to their virtual table."""
    return [
        name
        for (name,) in connection.execute(
            "SELECT lower(name) FROM pragma_table_list WHERE schema = 'main' AND type = 'table'"
            " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        )
        if name not in GUARD_TABLES
    ]


def _count(connection: sqlite3.Connection, tables: Collection[str]) -> dict[str, int]:
    """Return the number of rows of each table."""
    return {
        name: connection.execute(f"SELECT count(*) FROM {quoted}").fetchone()[0]
        for name, quoted in zip(tables, quote_all(tables), strict=True)
    }
