"""What can hurt in a set of pending statements, seen before anything runs.

Found by comparing the schema before with the schema after (the replay of the folder), and by the
few statements that say more than the schema: a DELETE, a rename, the drop inside of a rebuild. What
a migration does to the rows that are really there is the rehearsal's finding, not ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from local_mcp_gateway.schema.affinity import affinity, default_fits
from local_mcp_gateway.schema.facts import describe_column
from local_mcp_gateway.schema.seen import Seen, read
from local_mcp_gateway.schema.tokens import quote

if TYPE_CHECKING:
    from local_mcp_gateway.schema.model import Code, Column, Schema, Table


class HazardKind(StrEnum):
    """The closed set of things to look at before a migration is applied."""

    DELETES_DATA = "deletes_data"
    NOT_NULL_WITHOUT_DEFAULT = "not_null_without_default"
    ADDS_UNIQUE = "adds_unique"
    ADDS_CHECK = "adds_check"
    DROPS_INDEX = "drops_index"
    REBUILD = "rebuild"
    CHANGES_PRIMARY_KEY = "changes_primary_key"
    NARROWS_TYPE = "narrows_type"
    BREAKS_RUNNING_VERSION = "breaks_running_version"


DELETING = frozenset({HazardKind.DELETES_DATA})
"""The kinds that the policy `[guard] destructive` is about."""


@dataclass(frozen=True, slots=True)
class Hazard:
    """One thing to look at: which kind, in which table, column or index, and what to do about it."""

    kind: HazardKind
    object: str
    message: str


def hazards_of(statements: Sequence[str], before: Schema, after: Schema) -> tuple[Hazard, ...]:
    """Return the hazards of statements that turn `before` into `after`; a new table has none."""
    seen = read(statements)
    found: list[Hazard] = []
    kept: set[str] = set()
    for table in after.tables.values():
        old = before.tables.get(seen.origin(table.key))
        if old is not None:
            kept.add(old.key)
            found += _table(old, table, seen)
            found += _keys(old, table, before, after, seen)
    found += _gone(before, after, kept, seen)
    return tuple(dict.fromkeys(found))


def _table(old: Table, new: Table, seen: Seen) -> Iterator[Hazard]:
    """Yield what happens to the columns of a table that is there before and after."""
    if new.key in seen.dropped:
        yield Hazard(
            HazardKind.REBUILD,
            quote(new.name),
            f"The table {new.name} is written anew: for a large one this takes time and room on disk.",
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
    old: Table, new: Table, column: Column, before: Column | None, seen: Seen
) -> Iterator[Hazard]:
    """Yield what happens to one column that is there afterwards; `before` is None for a new one."""
    place = f"{quote(new.name)}.{quote(column.name)}"
    required = column.not_null and column.default is None and column.generated is None
    had_none = before is None or not (before.not_null or is_rowid(old, before.key))
    given = seen.gives(new.key, quote(column.key), new=before is None)
    if required and had_none and not given and not is_rowid(new, column.key):
        rows = "rows that are there have no value" if before is None else "rows with NULL fail"
        yield Hazard(
            HazardKind.NOT_NULL_WITHOUT_DEFAULT,
            place,
            f"{place} is NOT NULL without a default: {rows}. Give a default, or --fill it.",
        )
    if before is None:
        if required:
            yield _breaks(place, "must have a value", "that inserts without it")
        if new.strict and not default_fits(column):
            yield Hazard(
                HazardKind.NARROWS_TYPE,
                place,
                f"{place} has a default that is not of its type: the STRICT table refuses it in every row.",
            )
        return
    if _narrower(before.type.normal, column.type.normal, old, new):
        yield Hazard(
            HazardKind.NARROWS_TYPE,
            place,
            f"{place} changes from `{describe_column(before)}` to `{describe_column(column)}`: "
            "values of another type are converted or refused.",
        )
    if before.key != column.key:
        yield _breaks(f"{quote(old.name)}.{quote(before.name)}", f"is renamed to {column.name}")


def is_rowid(table: Table, column: str) -> bool:
    """Tell whether a column is the rowid itself, which is never NULL."""
    key = table.primary_key
    return key is not None and key.rowid and key.columns == (column,)


def _keys(old: Table, new: Table, before: Schema, after: Schema, seen: Seen) -> Iterator[Hazard]:
    """Yield what happens to keys, constraints and indexes of a table that stays."""
    if _primary(old, new.key, seen) != _primary(new, "", seen):
        yield Hazard(
            HazardKind.CHANGES_PRIMARY_KEY,
            quote(new.name),
            f"The primary key of {new.name} changes: rows with the same new key are refused, "
            "and references to the old key dangle.",
        )
    empty = {
        key
        for key, column in new.columns.items()
        if key not in old.columns
        and column.default is None
        and not seen.gives(new.key, quote(key), new=True)
    }
    had = {tuple((seen.now(new.key, n), c) for n, c in key) for key in _unique_keys(before, old)}
    for key in _unique_keys(after, new):
        columns = [column for column, _ in key]
        if key not in had and not empty & set(columns):
            place = f"{quote(new.name)}({', '.join(columns)})"
            yield Hazard(
                HazardKind.ADDS_UNIQUE,
                place,
                f"{place} becomes unique: the migration fails where two rows are equal.",
            )
    yield from _checks(old, new, seen)
    yield from _references(old, new, seen, empty)
    kept = {(index.parts, index.where) for index in after.indexes_of(new.key)}
    for index in before.indexes_of(old.key):
        if index.key not in after.indexes and (index.parts, index.where) not in kept:
            yield Hazard(
                HazardKind.DROPS_INDEX,
                quote(index.name),
                f"The index {index.name} of {old.name} is dropped: queries that used it get slower.",
            )


def _checks(old: Table, new: Table, seen: Seen) -> Iterator[Hazard]:
    """Yield each new CHECK over columns that rows have values in."""
    name = quote(new.name)
    was = {seen.now(new.key, check.expression.normal) for check in old.checks}
    fresh = {key for key in new.columns if key not in old.columns}
    for check in sorted(new.checks, key=lambda check: check.expression.normal):
        named = {word.strip('"') for word in check.expression.normal.split(" ")}
        if check.expression.normal not in was and not named & new.columns.keys() <= fresh:
            yield Hazard(
                HazardKind.ADDS_CHECK,
                name,
                f"{name} gets CHECK ({check.expression.text}): the migration fails where a row violates it.",
            )


def _references(old: Table, new: Table, seen: Seen, empty: set[str]) -> Iterator[Hazard]:
    """Yield each new foreign key of columns that rows have values in."""
    had = {(_moved(link.columns, new, seen), link.table) for link in old.foreign_keys}
    for link in sorted(new.foreign_keys, key=lambda link: link.columns):
        parents = {link.table, seen.renamed_tables.get(link.table, link.table)}
        place = f"{quote(new.name)}({', '.join(link.columns)})"
        if any((link.columns, parent) in had for parent in parents):
            if any(_takes_default(old, new, column) for column in link.columns):
                yield Hazard(
                    HazardKind.ADDS_CHECK,
                    place,
                    f"Rows with NULL in {place} get its default: the migration fails where that names "
                    f"no row of {link.table}.",
                )
            continue
        if empty & set(link.columns):
            continue
        yield Hazard(
            HazardKind.ADDS_CHECK,
            place,
            f"{place} has to name rows of {link.table}: the migration fails where one does not.",
        )


def _takes_default(old: Table, new: Table, column: str) -> bool:
    """Tell whether a rebuild writes the default of a column into rows that have NULL."""
    before, after = old.columns.get(column), new.columns[column]
    return (
        before is not None and after.not_null and not before.not_null and after.default is not None
    )


def _moved(columns: tuple[str, ...], new: Table, seen: Seen) -> tuple[str, ...]:
    return tuple(seen.now(new.key, column) for column in columns)


def _primary(table: Table, renamed: str, seen: Seen) -> tuple[tuple[str, ...], bool] | None:
    key = table.primary_key
    if key is None:
        return None
    return tuple(seen.now(renamed, column) for column in key.columns), key.rowid


def _unique_keys(schema: Schema, table: Table) -> list[tuple[tuple[str, str], ...]]:
    """Return the (column, collation) lists that are unique over all rows, constraints before indexes."""
    parts = [key.parts for key in sorted(table.uniques, key=lambda key: key.columns)]
    parts += [
        index.parts for index in schema.indexes_of(table.key) if index.unique and not index.where
    ]
    return [tuple((part.sql.normal, part.collation) for part in key) for key in parts]


def _gone(before: Schema, after: Schema, kept: set[str], seen: Seen) -> Iterator[Hazard]:
    """Yield what is no longer there at all, and the rows that statements delete by themselves."""
    for table in before.tables.values():
        if table.key not in kept:
            yield _deletes(table.name, f"The table {table.name} is dropped with all its rows.")
            yield _breaks(quote(table.name), "is dropped")
    for code in before.virtual_tables.values():
        gone = after.virtual_tables.get(code.key) != code and content_of(code) is None
        if gone and code.key not in seen.renamed_tables.values():
            yield _deletes(
                code.name, f"The virtual table {code.name} is dropped with what it holds."
            )
            if code.key not in after.virtual_tables:
                yield _breaks(quote(code.name), "is dropped")
    for code in before.views.values():
        if code.key not in after.views:
            yield _breaks(quote(code.name), "is dropped")
    for key in seen.deleted_from:
        if key in before.tables or key in before.virtual_tables:
            yield _deletes(key, f"Rows of {key} are deleted by the migration itself.")


def _deletes(name: str, message: str) -> Hazard:
    return Hazard(HazardKind.DELETES_DATA, quote(name), message)


def _breaks(place: str, what: str, who: str = "that still uses it") -> Hazard:
    return Hazard(
        HazardKind.BREAKS_RUNNING_VERSION, place, f"{place} {what}: a program version {who} fails."
    )


def _narrower(old: str, new: str, before: Table, after: Table) -> bool:
    """Tell whether a type takes less than before, by the rules of affinity (datatype3 §3.1)."""
    if after.strict and (old != new or not before.strict):
        return new != "any"
    order = affinity(old), affinity(new)
    return order[0] != order[1] and order[1] not in ("blob", "text")


def content_of(code: Code) -> str | None:
    """Return the key of the table that a full-text index reads its content from, if it has one."""
    tokens = code.statement.normal.split(" ")
    for at in range(len(tokens) - 2):
        if tokens[at] == "content" and tokens[at + 1] == "=":
            return tokens[at + 2].strip("'\"").lower() or None
    return None
