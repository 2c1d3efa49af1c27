"""Verify that views, triggers, virtual tables, indexes and foreign keys survive the migrations that change their tables.

What could run before (`broken`) has to run afterwards.

A DROP TABLE drops the table's triggers and indexes, even if a rebuild creates the table again. A RENAME
updates everything that names the table, even if the table is only moved out of the way. So each trigger
and index must still exist unless a statement of its own dropped it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from local_mcp_gateway.errors import VerificationFailed
from local_mcp_gateway.migrate.broken import Broken, event_of, find_broken
from local_mcp_gateway.migrate.statements import accepted
from local_mcp_gateway.migrate.verify import Object, read_objects
from local_mcp_gateway.sql import fold, quote

if TYPE_CHECKING:
    from collections.abc import Mapping

    from local_mcp_gateway.migrate.apply import Step
    from local_mcp_gateway.migrate.lineage import Lineage
    from local_mcp_gateway.schema import Index, Part, Schema, Table


def copy_of(objects: Sequence[Object]) -> sqlite3.Connection:
    """Return a database in memory with these objects and no rows, as far as they can be created here.

    For comparisons only: an object whose module or function is not available is left out. The caller
    closes it.
    """
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for one in sorted(objects, key=lambda one: _ORDER[one.kind]):
        try:
            connection.execute(one.sql)
        except sqlite3.Error:  # SQLite's own table, a shadow table, or something unavailable here
            continue
    return connection


_ORDER: Mapping[str, int] = {"table": 0, "index": 1, "view": 2, "trigger": 3}


_ASIDE = (
    "Make the new table under another name, copy the rows, drop the old table, and rename the new one;"
    " SQLite carries what names a table along when it is renamed."
)


def refuse_lost_dependents(
    connection: sqlite3.Connection,
    before: Sequence[Object],
    steps: Sequence[Step],
    lineage: Lineage,
) -> None:
    """Raise VerificationFailed for what was lost without being named, or refers to another table now."""
    after = read_objects(connection)
    there = {(one.kind, fold(one.name), fold(one.table)) for one in after}
    dropped = {name for step in steps for name in step.drops}
    accepts = {one for step in steps for one in step.accepts}
    for one in before:
        if one.kind not in ("trigger", "index") or fold(one.name) in dropped:
            continue
        home = _home(one, lineage, after)
        if home is None or (one.kind, fold(one.name), home) in there:
            continue
        if accepted(f"drops_{one.kind}", one.name) not in accepts and not _replaced(
            connection, one, home, before, after
        ):
            raise _lost(one, home, steps)
    _refuse_carried_along(before, after, lineage, steps)


def refuse_broken(
    found: Sequence[Broken],
    before: Sequence[Object],
    steps: Sequence[Step],
    lineage: Lineage,
) -> None:
    """Raise VerificationFailed for what of the found could run before."""
    if not found:
        return
    accepts = {one for step in steps for one in step.accepts}
    with closing(copy_of(tuple(before))) as copy:
        known = {_known(broken, lineage) for broken in find_broken(copy)}
    new = [
        broken
        for broken in found
        if _key(broken) not in known and accepted("cannot_run", broken.name) not in accepts
    ]
    if not new:
        return
    renamed_to = {change.to for step in steps for change in step.changes if change.to}
    aside = new[0].kind != "virtual table" and any(
        name in new[0].error or name == new[0].event for name in renamed_to
    )
    more = f" (and {len(new) - 1} more)" if len(new) > 1 else ""
    raise VerificationFailed(
        f"{new[0].sentence}{more}, after {_tags(steps)}.",
        hint=f"{_ASIDE if aside else _mend(new[0])} To leave it so, write the line"
        f" `-- guard: accept cannot_run {quote(new[0].name)}`.",
        broken=[broken.sentence for broken in new],
        tags=[step.tag for step in steps],
    )


def _mend(broken: Broken) -> str:
    if broken.kind == "foreign key":
        return f"Keep what it names a unique key of {broken.event}, or take the reference out of {broken.table}."
    return f"Create the {broken.kind} again for the new schema in the same file, or drop it there."


def _home(one: Object, lineage: Lineage, after: Sequence[Object]) -> str | None:
    """Return the present name of the table or view that a trigger or index belongs to; None: it is gone."""
    table = fold(one.table)
    if table in lineage:
        fate = lineage.fate(table)
        return fate.replaced or fate.now
    return next((table for view in after if view.kind == "view" and fold(view.name) == table), None)


def _lost(one: Object, home: str, steps: Sequence[Step]) -> VerificationFailed:
    step = next(
        (s for s in steps if any(fold(c.table) == fold(one.table) for c in s.changes)), steps[-1]
    )
    what = one.kind  # trigger or index
    also = "" if what == "trigger" else f" If it is meant, DROP INDEX {quote(one.name)} says so."
    return VerificationFailed(
        f"The {what} {quote(one.name)} of {quote(one.table)} would go with the old table, though no statement"
        f" of {_tags(steps)} drops it.",
        hint=f"Add it to the end of {step.tag} (or, where that is applied elsewhere, to a new migration):"
        f" {_one_line(one.sql)};{also} Or accept the loss with the line"
        f" `-- guard: accept drops_{what} {quote(one.name)}`.",
        kind=what,
        name=one.name,
        table=home,
        sql=one.sql,
        tag=step.tag,
    )


def _one_line(sql: str) -> str:
    return " ".join(sql.split()) if "--" not in sql and "'" not in sql else sql


def _replaced(
    connection: sqlite3.Connection,
    one: Object,
    home: str,
    before: Sequence[Object],
    after: Sequence[Object],
) -> bool:
    """Return whether something else replaces it, or it could not exist any more."""
    if one.kind == "trigger":
        old = {fold(known.name) for known in before}
        event = event_of(one.sql)
        return any(
            new.kind == "trigger"
            and fold(new.table) == home
            and fold(new.name) not in old
            and event_of(new.sql) == event
            for new in after
        )
    try:
        connection.execute(f"EXPLAIN {one.sql}")
    except sqlite3.Error as error:
        if "no such column" in str(error):
            return True
    return _covered(connection, one, home, before)


def _covered(
    connection: sqlite3.Connection, index: Object, home: str, before: Sequence[Object]
) -> bool:
    """Return whether another index or key does what the index did."""
    from local_mcp_gateway.schema import inspect

    with closing(copy_of(tuple(before))) as copy:
        old = inspect(copy).indexes.get(fold(index.name))
    new = inspect(connection)
    table = new.tables.get(home)
    return old is not None and table is not None and any(_does(old, new, table))


def _does(old: Index, schema: Schema, table: Table) -> Iterator[bool]:
    wanted = [(part.sql.normal, part.collation) for part in old.parts]
    where = old.where.normal if old.where else None
    keys = [key.parts for key in (table.primary_key, *table.uniques) if key]
    candidates: list[tuple[tuple[Part, ...], bool, str | None]]
    candidates = [(parts, True, None) for parts in keys]
    candidates += [
        (index.parts, index.unique, index.where.normal if index.where else None)
        for index in schema.indexes_of(table.key)
    ]
    for parts, unique, over in candidates:
        columns = [(part.sql.normal, part.collation) for part in parts]
        if over not in (None, where):
            yield False
        elif old.unique:
            yield unique and set(columns) <= set(wanted)
        else:
            yield columns[: len(wanted)] == wanted


def _refuse_carried_along(
    before: Sequence[Object], after: Sequence[Object], lineage: Lineage, steps: Sequence[Step]
) -> None:
    """Refuse views, triggers and foreign keys that follow a table which was only moved aside."""
    aside = {name: lineage.fate(name) for name in lineage if lineage.fate(name).replaced}
    if not aside:
        return
    from local_mcp_gateway.schema import words  # most migrations move nothing aside

    was = {(one.kind, fold(one.name)): one for one in before}
    for one in after:
        known = was.get((one.kind, fold(one.name)))
        if (
            known is None
            or known.sql == one.sql
            or fold(one.name) in {f.now for f in aside.values()}
        ):
            continue
        for name, fate in aside.items():
            if fate.now in words(one.sql) - words(known.sql):
                raise VerificationFailed(
                    f"The {one.kind} {quote(one.name)} would look at {fate.now} instead of {name}, after"
                    f" {_tags(steps)}.",
                    hint=_ASIDE,
                    kind=one.kind,
                    name=one.name,
                    tags=[step.tag for step in steps],
                )


def _key(broken: Broken) -> tuple[str, ...]:
    return (broken.kind, fold(broken.name), fold(broken.table), fold(broken.event))


def _known(broken: Broken, lineage: Lineage) -> tuple[str, ...]:
    """Return the present key of something that was broken before."""
    kind, *names = _key(broken)
    if kind == "trigger":
        name, table, event = names
        return (kind, name, lineage.now(table), event)
    return (kind, *map(lineage.now, names))


def _tags(steps: Sequence[Step]) -> str:
    tags = [step.tag for step in steps]
    return tags[0] if len(tags) == 1 else f"{tags[0]} … {tags[-1]}"
