"""Find hazards in pending statements before anything runs.

They come from comparing the schema before with the schema after (the replay of the folder), and from
statements that say more than the schema: a DELETE, a rename, the drop inside a rebuild. What a migration
does to the actual rows is found by the rehearsal, not here.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from local_mcp_gateway.schema.comparison import compare, describe_column
from local_mcp_gateway.schema.create_table import affinity, default_fits
from local_mcp_gateway.schema.hazard_rules import StatementEffects, constraint_hazards, read_effects
from local_mcp_gateway.schema.inspection import inspect
from local_mcp_gateway.schema.model import Column, Hazard, HazardKind, Index, Part, Schema, Table
from local_mcp_gateway.sql import fold, normal_tokens, quote, unquote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


_IF_NOT_EXISTS = re.compile(r"\bIF\s+NOT\s+EXISTS\b", re.IGNORECASE)


def hazards_of(statements: Sequence[str], before: Schema, after: Schema) -> tuple[Hazard, ...]:
    """Return the hazards of statements that turn `before` into `after`; a new table has none."""
    seen = read_effects(statements)
    found: list[Hazard] = []
    kept: set[str] = set()
    for table in after.tables.values():
        old = before.tables.get(seen.origin(table.key, before.tables.keys()))
        if old is not None:
            kept.add(old.key)
            found += _table(old, table, seen)
            found += constraint_hazards(old, table, before, after, seen)
            found += _indexes(old, table, before, after, seen)
    found += _gone(before, after, kept, seen)
    return tuple(dict.fromkeys(found))


def kept_instead(connection: sqlite3.Connection, statement: str) -> Hazard | None:
    """Return the hazard of an `IF NOT EXISTS` over an object that lacks what the statement says.

    Called before the statement runs: it does nothing then, and the schema is not the one that the
    migrations make.
    """
    if not _IF_NOT_EXISTS.search(statement):
        return None
    words = [word for _, word, _, _ in normal_tokens(statement) if word != ";"]
    at = next((n for n in (2, 3) if words[n : n + 3] == ["if", "not", "exists"]), None)
    if words[:1] != ["create"] or words[1] in ("temp", "temporary") or at is None:
        return None
    named = words[at + (5 if words[at + 4 : at + 5] == ["."] else 3) :]
    row = connection.execute(
        "SELECT name, sql FROM main.sqlite_schema WHERE lower(name) = ? AND sql IS NOT NULL",
        (fold(unquote(named[0])),),
    ).fetchone()
    if row is None or [*words[:at], *named] == [word for _, word, _, _ in normal_tokens(row[1])]:
        return None
    lacking = _lacking(statement, row[1]) if words[1] == "table" else ("it is not as written here",)
    if not lacking:
        return None
    message = f"{row[0]} is there already, and IF NOT EXISTS leaves it as it is: {lacking[0]}."
    return Hazard(HazardKind.KEEPS_EXISTING, quote(row[0]), message)


def _lacking(statement: str, existing: str) -> tuple[str, ...]:
    """Return what the existing table lacks of the one in the statement."""
    schemas = []
    for sql in (statement, existing):
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as memory:
            try:
                memory.execute(sql)
            except sqlite3.Error:  # it calls a function of the application
                return ("it is not as written here",)
            schemas.append(inspect(memory))
    return tuple(str(one) for one in compare(*schemas) if one.expected is not None)


def _table(old: Table, new: Table, seen: StatementEffects) -> Iterator[Hazard]:
    """Yield the hazards of a table that exists before and after."""
    if seen.dropped.get(new.key) == old.key:
        yield Hazard(
            HazardKind.REBUILD,
            quote(old.name),
            f"The table {old.name} is rebuilt: for a large one this takes time and disk space.",
        )
    if old.key != new.key:
        yield Hazard(
            HazardKind.BREAKS_RUNNING_VERSION,
            quote(old.name),
            f"{old.name} becomes {new.name}: a program version that still uses the old name fails.",
        )
    origins = {key: seen.renamed_columns.get((new.key, key), key) for key in new.columns}
    for key, column in new.columns.items():
        yield from _column(old, new, column, old.columns.get(origins[key]), seen)
    for key, column in old.columns.items():
        if key not in origins.values() and column.generated is None:
            place = f"{quote(old.name)}.{quote(column.name)}"
            yield Hazard(
                HazardKind.DELETES_DATA,
                place,
                f"{place} is dropped with every value in it. Keep it, or copy it elsewhere first.",
            )
            yield _breaks(place, "is dropped")


def _column(
    old: Table, new: Table, column: Column, before: Column | None, seen: StatementEffects
) -> Iterator[Hazard]:
    """Yield the hazards of one remaining column; `before` is None for a new one."""
    place = f"{quote(new.name)}.{quote(column.name)}"
    yield from _required(old, new, column, before, seen)
    if before is None:
        if new.strict and not default_fits(column):
            yield Hazard(
                HazardKind.NARROWS_TYPE,
                place,
                f"{place} has a default that is not of its type: the STRICT table refuses it in every row.",
            )
        return
    if column.generated is not None and before.generated is None:
        yield Hazard(
            HazardKind.DELETES_DATA,
            place,
            f"{place} becomes a generated column: its values are computed, and those that it has are "
            "lost. Copy them to another column first.",
        )
        yield _breaks(place, "becomes a generated column", "that writes it")
    if why := _narrower(before, column, old, new):
        yield Hazard(
            HazardKind.NARROWS_TYPE,
            place,
            f"{place} {why}: values of another type are converted or refused.",
        )
    if before.key != column.key:
        yield _breaks(f"{quote(old.name)}.{quote(before.name)}", f"is renamed to {column.name}")


def _required(
    old: Table, new: Table, column: Column, before: Column | None, seen: StatementEffects
) -> Iterator[Hazard]:
    """Yield what a column that needs a value means for rows and programs."""
    if not column.not_null or column.generated is not None or new.is_rowid(column.key):
        return
    bare = column.default is None
    place = f"{quote(new.name)}.{quote(column.name)}"
    had_none = before is None or not (before.not_null or old.is_rowid(before.key))
    if had_none and not seen.gives(new.key, quote(column.key), new=before is None):
        if before is not None:
            yield _null_in_copy(new, column, seen)
        elif bare:
            yield Hazard(
                HazardKind.NOT_NULL_WITHOUT_DEFAULT,
                place,
                f"{place} is NOT NULL without a default: existing rows have no value. Give a default,"
                " or --fill it.",
            )
    elif had_none and before is not None:
        yield _given(place)
    if bare and (had_none or (before is not None and before.default is not None)):
        yield _breaks(place, "must have a value", "that inserts without it")


def _given(place: str) -> Hazard:
    return Hazard(
        HazardKind.CHANGES_VALUES,
        place,
        f"Rows with NULL in {place} get a value: which they were is not known afterwards, not even to the"
        " way back.",
    )


def _null_in_copy(new: Table, column: Column, seen: StatementEffects) -> Hazard:
    """Describe what happens to NULL values in a NOT NULL column that is copied unchanged."""
    place = f"{quote(new.name)}.{quote(column.name)}"
    match seen.on_conflict(new.key, column.on_conflict):
        case "replace" if column.default is not None:
            return _given(place)
        case "ignore":
            rows = "rows with NULL would be left out of the copy, so the migration is refused"
        case _:
            rows = "rows with NULL fail"
    if column.default is None:
        said = f"{place} is NOT NULL without a default: {rows}. Give a default, or --fill it."
    else:
        said = f"{place} is NOT NULL, and its default is not for rows that are copied: {rows}."
    return Hazard(HazardKind.NOT_NULL_WITHOUT_DEFAULT, place, said)


def _indexes(
    old: Table, new: Table, before: Schema, after: Schema, seen: StatementEffects
) -> Iterator[Hazard]:
    """Yield each dropped index that no other index or key replaces (by the same leading columns)."""
    keys = [key.parts for key in (new.primary_key, *new.uniques) if key]
    kept: list[tuple[list[tuple[str, str, bool]], str | None]]
    kept = [(_said(parts), None) for parts in keys]
    kept += [
        (_said(index.parts), index.where.normal if index.where else None)
        for index in after.indexes_of(new.key)
    ]
    for index in before.indexes_of(old.key):
        where = seen.now(new.key, index.where.normal) if index.where else None
        wanted = [(seen.now(new.key, text), c, d) for text, c, d in _said(index.parts)]
        if not any(
            parts[: len(wanted)] == wanted and other in {None, where} for parts, other in kept
        ):
            became = "is changed" if index.key in after.indexes else "is dropped"
            children = _children(index, new, after) if index.unique else ""
            follows = (
                f"{children} references these columns, so writes to both tables would fail"
                if children
                else "queries that used it get slower"
            )
            yield Hazard(
                HazardKind.DROPS_INDEX,
                quote(index.name),
                f"The index {index.name} of {old.name} {became}: {follows}.",
            )


def _children(index: Index, parent: Table, after: Schema) -> str:
    """Return the tables whose foreign keys reference the columns of a dropped unique index."""
    columns = {part.sql.normal for part in index.parts}
    return ", ".join(
        table.name
        for table in after.tables.values()
        if any(link.table == parent.key and set(link.to) == columns for link in table.foreign_keys)
    )


def _said(parts: Sequence[Part]) -> list[tuple[str, str, bool]]:
    return [(part.sql.normal, part.collation, part.descending) for part in parts]


def _gone(
    before: Schema, after: Schema, kept: set[str], seen: StatementEffects
) -> Iterator[Hazard]:
    """Yield dropped objects, and rows that statements delete explicitly."""
    for table in before.tables.values():
        if table.key not in kept:
            yield _deletes(table.name, f"The table {table.name} is dropped with all its rows.")
            yield _breaks(quote(table.name), "is dropped")
    for code in before.virtual_tables.values():
        renamed = code.key in seen.renamed_tables.values()
        gone = after.virtual_tables.get(code.key) != code and code.content is None
        if gone and not renamed:
            yield _deletes(
                code.name, f"The virtual table {code.name} is dropped with what it holds."
            )
        if code.key not in after.virtual_tables:
            yield _breaks(quote(code.name), "is renamed" if renamed else "is dropped")
    yield from _triggers(before, after, kept, seen)
    for code in before.views.values():
        if code.key not in after.views:
            yield _breaks(quote(code.name), "is dropped")
    for key in seen.deleted_from:
        if key in before.tables or key in before.virtual_tables:
            yield _deletes(key, f"Rows of {key} are deleted by the migration itself.")


def _triggers(
    before: Schema, after: Schema, kept: set[str], seen: StatementEffects
) -> Iterator[Hazard]:
    """Yield each dropped trigger whose table or view remains."""
    for code in before.triggers.values():
        if code.key not in after.triggers and (code.table in kept or code.table in after.views):
            if code.key in seen.dropped_by_name:
                said = f"The trigger {code.name} of {code.table} is dropped: what it did no longer happens."
            else:
                said = (
                    f"The trigger {code.name} goes with the old {code.table} and is not created again, so the"
                    " migration is refused where it is there."
                )
            yield Hazard(HazardKind.DROPS_TRIGGER, quote(code.name), said)


def _deletes(name: str, message: str) -> Hazard:
    return Hazard(HazardKind.DELETES_DATA, quote(name), message)


def _breaks(place: str, what: str, who: str = "that still uses it") -> Hazard:
    return Hazard(
        HazardKind.BREAKS_RUNNING_VERSION, place, f"{place} {what}: a program version {who} fails."
    )


def _narrower(before: Column, column: Column, old: Table, new: Table) -> str | None:
    """Describe how a column accepts less than before by the affinity rules (datatype3 §3.1), or None."""
    if new.strict and not old.strict and column.type.normal != "any":
        return f"becomes strictly {column.type.text.upper()}"
    changes = f"changes from `{describe_column(before)}` to `{describe_column(column)}`"
    if new.strict:
        wider = before.type == column.type or column.type.normal == "any"
        return None if wider else changes
    was, now = affinity(before.type.normal), affinity(column.type.normal)
    return None if was == now or now in {"blob", "text"} else changes


_SAMPLE = 500
_BYTES_PER_ROW = 12
"""Overhead of a b-tree cell, in addition to its values."""
_BYTES_PER_S = 50e6
_ROWS_PER_S = 400e3
"""Estimate for a current laptop; the rehearsal measures the real figure."""


def rebuild_cost(hazards: Iterable[Hazard], connection: sqlite3.Connection) -> tuple[Hazard, ...]:
    """Return the hazards, adding to each rebuild what it costs on this database.

    Counts the rows of each such table and reads the first few hundred of them.
    """
    return tuple(_weighed(h, connection) if h.kind is HazardKind.REBUILD else h for h in hazards)


def _weighed(hazard: Hazard, connection: sqlite3.Connection) -> Hazard:
    with suppress(
        sqlite3.Error
    ):  # renamed by the same migration, or not created yet: nothing to measure
        rows, size = _rows_and_bytes(connection, hazard.object)
        seconds = size / _BYTES_PER_S + rows / _ROWS_PER_S
        took = f"about {seconds:.0f} s" if seconds >= 1 else "less than a second"
        return replace(
            hazard,
            message=f"The table {unquote(hazard.object)} is rebuilt: {rows:,} row{'s' * (rows != 1)}, about "
            f"{size / 1e6:,.1f} MB, {took} and as much disk space again.",
        )
    return hazard


def _rows_and_bytes(connection: sqlite3.Connection, table: str) -> tuple[int, float]:
    [(rows,)] = connection.execute(f"SELECT count(*) FROM {table}").fetchall()
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    lengths = " + ".join(f"coalesce(length(CAST({quote(name)} AS BLOB)), 0)" for name in columns)
    [(mean,)] = connection.execute(
        f"SELECT avg(size) FROM (SELECT {lengths} AS size FROM {table} LIMIT {_SAMPLE})"
    ).fetchall()
    return rows, rows * ((mean or 0) + _BYTES_PER_ROW)
