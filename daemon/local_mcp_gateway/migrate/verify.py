"""What has to be true before COMMIT: no row lost that no statement removed, no row orphaned.

A rebuild under the wrong settings wipes the children of a table by its cascades, and
`foreign_key_check` is still empty afterwards; so rows are counted, before and after. Orphans that were
there before are not the migration's fault, only new ones are: rows that name a key which, by then,
fewer rows named in vain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import field
from typing import TYPE_CHECKING

from local_mcp_gateway.errors import VerificationFailed
from local_mcp_gateway.frozen import frozen
from local_mcp_gateway.migrate.ledger import GUARD_TABLES
from local_mcp_gateway.migrate.orphans import Link, Orphans, Value, find_orphans, link_of, locate
from local_mcp_gateway.migrate.references import read_references
from local_mcp_gateway.migrate.tokens import fold, quoted

if TYPE_CHECKING:
    import sqlite3

    from local_mcp_gateway.migrate.apply import Step

_NAMED_ROWS = 5


@frozen
class Survey:
    """What was counted: the rows of each table, names folded, and the orphans."""

    rows: Mapping[str, int]
    orphans: Orphans = field(default_factory=dict)


@frozen
class Loss:
    """A table that has fewer rows than before, by statements that say so: a hazard, not an error."""

    table: str
    before: int
    after: int


def survey(connection: sqlite3.Connection) -> Survey:
    """Count the rows of every table and the orphans that there are."""
    return Survey(
        {name: _count(connection, name) for name in _tables(connection)},
        find_orphans(connection),
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
    _refuse_lost_parents(connection, before, now_called, steps)
    _refuse_new_orphans(connection, before, now_called, steps)
    return tuple(losses)


def _follow(names: Iterable[str], steps: Sequence[Step]) -> tuple[dict[str, str], set[str]]:
    """Follow renames through the steps: what each table is called now, and which lost rows on purpose.

    A rebuild ends with a new table under the old name: the old one was dropped, so it counts as meant.
    """
    original = {name: name for name in names}  # called now → was called before
    meant: set[str] = set()
    for step in steps:
        touched = {fold(name) for name in step.tables_deleted_from}
        meant |= {was for now, was in original.items() if now in touched}
        for old, new in step.renames:
            was = original.pop(fold(old), None)
            if was is None:
                continue
            original[fold(new)] = was
            if fold(new) in touched:
                meant.add(was)
    now_called = {was: now for now, was in original.items()}
    return {name: now_called.get(name, name) for name in names}, meant


def _refuse_lost_parents(
    connection: sqlite3.Connection,
    before: Survey,
    now_called: Mapping[str, str],
    steps: Sequence[Step],
) -> None:
    """Refuse a reference that a renaming carried along to a table that was dropped then.

    Of tables that were there before only: an old folder's mistake may be mended further on.
    """
    renamed_to = {fold(new) for step in steps for _, new in step.renames}
    if not renamed_to or not before.rows:
        return
    tables = set(_tables(connection))
    old = {now_called.get(name, name) for name in before.rows}
    for reference in read_references(connection):
        child, parent = fold(reference.child), fold(reference.parent)
        if child in old and parent in renamed_to and parent not in tables:
            raise VerificationFailed(
                f"Table {child} would reference {parent}, which is no longer there: SQLite carried the"
                " reference along when the table was renamed.",
                hint="Make the new table under another name, copy the rows, drop the old table, and rename"
                " the new one; or write PRAGMA legacy_alter_table=ON before the renaming.",
                table=child,
                parent=parent,
            )


def _refuse_new_orphans(
    connection: sqlite3.Connection,
    before: Survey,
    now_called: Mapping[str, str],
    steps: Sequence[Step],
) -> None:
    found = find_orphans(connection)
    if not found:
        return
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
            f"{count} row{'s' if count > 1 else ''} of {link.child}{which} would point to rows of"
            f" {link.parent} that are no longer there.",
            hint=f"Delete or mend those rows of {link.child} in the same migration; if it relies on ON DELETE"
            " or ON UPDATE actions, give it the first line `-- guard: foreign-keys=on`.",
            table=link.child,
            parent=link.parent,
            rows=sorted(rows)[:_NAMED_ROWS],
            tags=[step.tag for step in steps],
        )


def _known(
    before: Orphans, link: Link, links: AbstractSet[Link], was_called: Mapping[str, str]
) -> Counter[Value]:
    """Return the orphans that a link had before; where its columns are new, those of links that went."""
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
    """Return the ordinary tables, folded: what belongs to a virtual table is that table's matter."""
    return [
        name
        for (name,) in connection.execute(
            "SELECT lower(name) FROM pragma_table_list WHERE schema = 'main' AND type = 'table'"
            " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        )
        if name not in GUARD_TABLES
    ]


def _count(connection: sqlite3.Connection, table: str) -> int:
    count: int = connection.execute(f"SELECT count(*) FROM {quoted(table)}").fetchone()[0]
    return count
