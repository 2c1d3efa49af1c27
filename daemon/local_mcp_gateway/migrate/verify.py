"""Verify migrations before COMMIT: no row lost that no statement deleted, no new orphan, nothing broken.

A rebuild under the wrong settings deletes the children of a table by its cascades, and
`foreign_key_check` is still empty afterwards; so rows are counted, before and after. The orphans
themselves are in `foreign_keys`: most databases have none.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from local_mcp_gateway.errors import VerificationFailed
from local_mcp_gateway.formats import counted
from local_mcp_gateway.migrate.history import GUARD_TABLES
from local_mcp_gateway.migrate.lineage import Fate, Lineage
from local_mcp_gateway.migrate.statements import accepted
from local_mcp_gateway.sql import fold, quote, quote_all, tokens

if TYPE_CHECKING:
    from local_mcp_gateway.migrate.apply import Step
    from local_mcp_gateway.migrate.foreign_keys import Orphans, Violated
    from local_mcp_gateway.migrate.rebuild_checks import DataChange


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
        _count_orphans(connection),
        read_objects(connection),
        _sequences(connection),
    )


def _count_orphans(connection: sqlite3.Connection) -> Orphans:
    """Count the rows whose parent is missing, by the key that they refer to."""
    found = tuple(dict.fromkeys(_foreign_key_check(connection)))
    if not found:
        return {}
    from local_mcp_gateway.migrate.foreign_keys import count_orphans

    return count_orphans(connection, found)


def _foreign_key_check(connection: sqlite3.Connection) -> Iterator[Violated]:
    """Yield the violated foreign key of each orphan.

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


def _sequences(connection: sqlite3.Connection) -> dict[str, int]:
    """Return the largest rowid that each AUTOINCREMENT table ever had, by its folded name."""
    ever = connection.execute(
        "SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'"
    ).fetchone()
    if ever is None:  # there has never been such a table
        return {}
    found = connection.execute("SELECT name, seq FROM sqlite_sequence")
    return {fold(name): seq for name, seq in found if name and isinstance(seq, int)}


def keep_sequences(
    connection: sqlite3.Connection, before: Mapping[str, int], steps: Sequence[Step]
) -> None:
    """Give rebuilt AUTOINCREMENT tables at least the numbers `before`, unless a statement sets them itself.

    SQLite never gives a rowid of such a table twice, but a rebuild's new table begins with the largest that
    was copied: the number of a deleted row would be given again, and whatever still names that row would
    mean another. Runs inside the open transaction.
    """
    changes = [change for step in steps for change in step.changes]
    if not before or not any(change.what == "drop" for change in changes):
        return
    texts = (text.lower() for step in steps for text in step.texts)
    own = [text for text in texts if "sqlite_sequence" in text]
    now = _sequences(connection)
    lineage = Lineage(before, changes)
    for name, last in before.items():
        fate = lineage.fate(name)
        if not fate.dropped or fate.now is None or now.get(fate.now, -1) >= last:
            continue
        if any(one in text for text in own for one in (name, fate.last_name)):
            continue
        table, sql = connection.execute(
            "SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND lower(name) = ?",
            (fate.now,),
        ).fetchone()
        if any(token.upper == "AUTOINCREMENT" for token in tokens(sql)):
            connection.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
            connection.execute("INSERT INTO sqlite_sequence VALUES (?, ?)", (table, last))


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
    from local_mcp_gateway.migrate.rebuild_checks import DataChange, lost_rows

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
    from local_mcp_gateway.migrate.broken import find_broken

    broken = find_broken(connection)
    if not lost and not broken:
        return
    from local_mcp_gateway.migrate.dependents import refuse_broken, refuse_lost_dependents

    lineage = Lineage(before.rows, changed)
    if lost:
        refuse_lost_dependents(connection, before.objects, steps, lineage)
    refuse_broken(broken, before.objects, steps, lineage)


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
    from local_mcp_gateway.migrate.foreign_keys import read_references

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
    found = tuple(dict.fromkeys(_foreign_key_check(connection)))
    if found:
        from local_mcp_gateway.migrate.foreign_keys import refuse_new_orphans

        tags = [step.tag for step in steps]
        refuse_new_orphans(connection, found, before.orphans, now_called, tags)


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
