"""What has to be true before COMMIT: no row lost that no statement removed, no row orphaned.

A rebuild under the wrong settings wipes the children of a table by its cascades, and
`foreign_key_check` is still empty afterwards; so rows are counted, before and after. Orphans that were
there before are not the migration's fault, only new ones are.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING

from local_mcp_gateway.errors import VerificationFailed
from local_mcp_gateway.frozen import frozen
from local_mcp_gateway.migrate.ledger import GUARD_TABLES

if TYPE_CHECKING:
    from local_mcp_gateway.migrate.apply import Step

_NAMED_ROWS = 5
_REMEMBERED_ORPHANS = 10_000


@frozen
class Orphans:
    """Rows of one table whose parent is missing in another."""

    count: int
    rows: frozenset[int | None]
    """The first ten thousand rowids; None for tables without one."""


@frozen
class Survey:
    """What was counted: rows of each table, and orphans by (table, parent), names in lower case."""

    rows: Mapping[str, int]
    orphans: Mapping[tuple[str, str], Orphans] = field(default_factory=dict)


@frozen
class Loss:
    """A table that has fewer rows than before, by statements that say so: a hazard, not an error."""

    table: str
    before: int
    after: int


def survey(connection: sqlite3.Connection) -> Survey:
    """Count the rows of every table and the orphans that there are."""
    return Survey(
        {name: _count(connection, name) for name in _tables(connection)}, _orphans(connection)
    )


def verify(
    connection: sqlite3.Connection, before: Survey, steps: Sequence[Step]
) -> tuple[Loss, ...]:
    """Raise VerificationFailed if rows were lost or orphaned; return the losses that were meant.

    Runs inside the open transaction; the caller rolls back.
    """
    now_called, meant = _follow(before.rows, steps)
    tables = set(_tables(connection))
    losses: list[Loss] = []
    for name, count in before.rows.items():
        # A rebuild that renames the old table out of the way ends with a new one under its name.
        current = now_called[name] if now_called[name] in tables else name
        after = _count(connection, current) if current in tables else 0
        if after >= count:
            continue
        if name not in meant:
            raise VerificationFailed(
                f"Table {name} had {count} rows and has {after} after the migrations, though none of"
                " their statements deletes from it or drops it.",
                hint="Look for INSERT OR REPLACE or REPLACE INTO, which remove rows that stand in their"
                " way; write a DELETE if the loss is meant.",
                table=name,
                before=count,
                after=after,
            )
        losses.append(Loss(name, count, after))
    _refuse_new_orphans(connection, before, now_called, steps)
    return tuple(losses)


def _follow(names: Iterable[str], steps: Sequence[Step]) -> tuple[dict[str, str], set[str]]:
    """Follow renames through the steps: what each table is called now, and which lost rows on purpose.

    A rebuild ends with a new table under the old name: the old one was dropped, so it counts as meant.
    """
    original = {name: name for name in names}  # called now → was called before
    meant: set[str] = set()
    for step in steps:
        touched = {name.lower() for name in step.tables_deleted_from}
        meant |= {was for now, was in original.items() if now in touched}
        for old, new in step.renames:
            was = original.pop(old.lower(), None)
            if was is None:
                continue
            original[new.lower()] = was
            if new.lower() in touched:
                meant.add(was)
    now_called = {was: now for now, was in original.items()}
    return {name: now_called.get(name, name) for name in names}, meant


def _refuse_new_orphans(
    connection: sqlite3.Connection,
    before: Survey,
    now_called: Mapping[str, str],
    steps: Sequence[Step],
) -> None:
    was_called = {now: was for was, now in now_called.items()}
    for (table, parent), found in _orphans(connection).items():
        known = before.orphans.get(
            (was_called.get(table, table), was_called.get(parent, parent)), Orphans(0, frozenset())
        )
        if found.count <= known.count:
            continue
        new = sorted(row for row in found.rows - known.rows if row is not None)[:_NAMED_ROWS]
        which = f" (rowid {', '.join(map(str, new))}{'…' if found.count - known.count > len(new) else ''})"
        count = found.count - known.count
        raise VerificationFailed(
            f"{count} row{'s' if count > 1 else ''} of {table}{which if new else ''} would point to rows of"
            f" {parent} that are no longer there.",
            hint=f"Delete or mend those rows of {table} in the same migration; if it relies on ON DELETE or"
            " ON UPDATE actions, give it the first line `-- guard: foreign-keys=on`.",
            table=table,
            parent=parent,
            rows=new,
            tags=[step.tag for step in steps],
        )


def _tables(connection: sqlite3.Connection) -> list[str]:
    """Return the ordinary tables, lower case: what belongs to a virtual table is that table's matter."""
    return [
        name.lower()
        for (name,) in connection.execute(
            "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'"
            " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        )
        if name.lower() not in GUARD_TABLES
    ]


def _count(connection: sqlite3.Connection, table: str) -> int:
    quoted = table.replace('"', '""')
    count: int = connection.execute(f'SELECT count(*) FROM "{quoted}"').fetchone()[0]
    return count


def _orphans(connection: sqlite3.Connection) -> dict[tuple[str, str], Orphans]:
    """Collect foreign_key_check; a table whose keys do not fit its parent at all cannot be checked."""
    try:
        return _collect(connection.execute("PRAGMA foreign_key_check"))
    except sqlite3.OperationalError:
        found: dict[tuple[str, str], Orphans] = {}
        for table in _tables(connection):
            quoted = table.replace('"', '""')
            try:
                found |= _collect(connection.execute(f'PRAGMA foreign_key_check("{quoted}")'))
            except sqlite3.OperationalError:
                continue  # "foreign key mismatch": the schema's error, every later write will say it
        return found


def _collect(rows: Iterable[tuple[str, int | None, str, int]]) -> dict[tuple[str, str], Orphans]:
    counts: dict[tuple[str, str], int] = {}
    seen: dict[tuple[str, str], set[int | None]] = {}
    for table, rowid, parent, _ in rows:
        key = (table.lower(), parent.lower())
        counts[key] = counts.get(key, 0) + 1
        remembered = seen.setdefault(key, set())
        if len(remembered) < _REMEMBERED_ORPHANS:
            remembered.add(rowid)
    return {key: Orphans(count, frozenset(seen[key])) for key, count in counts.items()}
