"""Order the statements of a change so that each finds what it needs. Pure.

Triggers and views that use a rebuilt table are dropped first and recreated last: between DROP and RENAME
they would refer to a missing table, and RENAME fails then. Tables are created parents first and dropped
children first, so the SQL also works where foreign keys are enforced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from local_mcp_gateway.schema.create_table import affinity
from local_mcp_gateway.schema.ddl import create, create_table, rebuild
from local_mcp_gateway.schema.diff import Change, words
from local_mcp_gateway.sql import fold, quote

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from local_mcp_gateway.schema.model import Code, Column, Index, Schema, Table


def order_statements(
    old: Schema,
    new: Schema,
    changes: Sequence[Change],
    *,
    fills: Mapping[tuple[str, str], str],
    in_the_way: Collection[str] = (),
) -> list[str]:
    """Return the statements that turn `old` into `new`; `in_the_way` are views and triggers to drop and recreate."""
    rebuilt = {change.old.key for change in changes if change.alters is None}
    gone = {key for key in old.tables if key not in new.tables}
    aside = _dependents(old, rebuilt | gone if rebuilt else set()) | set(in_the_way)
    views = [
        view for view in old.views.values() if view.key in aside or new.views.get(view.key) != view
    ]
    set_aside = {view.key for view in views}
    lost_with = rebuilt | gone | set_aside
    triggers = [
        trigger
        for trigger in old.triggers.values()
        if trigger.key in aside
        or trigger.table in lost_with
        or new.triggers.get(trigger.key) != trigger
    ]
    dropped = {code.key for code in (*views, *triggers)}
    return [
        *(
            f"DROP TRIGGER {quote(code.name)}"
            for code in triggers
            if code.table not in lost_with
            or (code.key in aside and code.table not in set_aside)
            or _goes(code.key, code.table, new.triggers, (rebuilt | set_aside) - gone)
        ),
        *(f"DROP VIEW {quote(code.name)}" for code in reversed(views)),
        *_dropped_indexes(old, new, rebuilt, gone),
        *_dropped_virtual_tables(old, new),
        *(
            create_table(table)
            for table in parents_first(new, new.tables.keys() - old.tables.keys())
        ),
        *_changed_tables(old, new, changes, fills),
        *(f"DROP TABLE {quote(table.name)}" for table in reversed(parents_first(old, gone))),
        *(
            create(index)
            for index in new.indexes.values()
            if old.indexes.get(index.key) != index or index.table in rebuilt
        ),
        *_created_virtual_tables(old, new),
        *(create(view) for view in new.views.values() if _missing(view, old.views, dropped)),
        *(create(code) for code in new.triggers.values() if _missing(code, old.triggers, dropped)),
    ]


def _missing(code: Code, before: Mapping[str, Code], dropped: Collection[str]) -> bool:
    return code.key in dropped or code.key not in before


def _dependents(schema: Schema, tables: Collection[str]) -> set[str]:
    """Return the views and triggers that name one of the tables, directly or through a view."""
    found: set[str] = set()
    names = set(tables)
    mentions = {view.key: words(view.sql) for view in schema.views.values()} if tables else {}
    while True:
        more = {key for key, named in mentions.items() if key not in found and named & names}
        if not more:
            break
        found |= more
        names |= more
    for trigger in schema.triggers.values():
        if words(trigger.sql) & (names - {trigger.table or ""}):
            found.add(trigger.key)
    return found


def _goes(
    key: str, table: str | None, after: Mapping[str, Code | Index], made_again: Collection[str]
) -> bool:
    """Tell whether an object dropped along with its table or view is not recreated and needs an own DROP."""
    return table in made_again and (key not in after or after[key].table != table)


def _dropped_indexes(
    old: Schema, new: Schema, rebuilt: Collection[str], gone: Collection[str]
) -> Iterable[str]:
    for index in old.indexes.values():
        if index.table in rebuilt:
            goes = _goes(index.key, index.table, new.indexes, rebuilt)
        else:
            goes = index.table not in gone and new.indexes.get(index.key) != index
        if goes:
            yield f"DROP INDEX {quote(index.name)}"


def _dropped_virtual_tables(old: Schema, new: Schema) -> Iterable[str]:
    for code in old.virtual_tables.values():
        if new.virtual_tables.get(code.key) != code:
            yield f"DROP TABLE {quote(code.name)}"


def _created_virtual_tables(old: Schema, new: Schema) -> Iterable[str]:
    """Create virtual tables; fill a full-text index over an existing table from that table."""
    for code in new.virtual_tables.values():
        if old.virtual_tables.get(code.key) == code:
            continue
        yield create(code)
        if code.content in old.tables:
            yield f"INSERT INTO {quote(code.name)} ({quote(code.name)}) VALUES ('rebuild')"


def _changed_tables(
    old: Schema, new: Schema, changes: Sequence[Change], fills: Mapping[tuple[str, str], str]
) -> Iterable[str]:
    order = {table.key: at for at, table in enumerate(parents_first(new, new.tables.keys()))}
    for change in sorted(changes, key=lambda change: order[change.new.key]):
        if change.alters is not None:
            yield from change.alters
            continue
        values = copied(change.old, change.new, fills)
        rowid = _kept_rowid(change.old, change.new, values)
        yield from rebuild(
            change.old, change.new, temporary_name(change.new, old, new), values, rowid=rowid
        )


def _kept_rowid(old: Table, new: Table, values: dict[str, str]) -> tuple[str, str] | None:
    """Return the new table's rowid name and the old one's expression for it, where the copy must state it.

    Otherwise full-text and r-tree tables, and anything else that refers to rowids, would refer to other rows.
    A new INTEGER PRIMARY KEY is the rowid: then the expression goes into `values`.
    """
    source = old.rowid_name
    if source is None or new.without_rowid:
        return None
    if new.primary_key is not None and new.primary_key.rowid:
        key = new.primary_key.columns[0]
        if key not in old.columns:
            values.setdefault(key, source)
        return None
    target = new.rowid_name
    return (target, source) if target is not None else None


def temporary_name(table: Table, *schemas: Schema) -> str:
    """Return the name that a rebuild of the table gives to the new one, until it takes its place."""
    name = f"__new_{table.name}"
    while any(fold(name) in schema.tables for schema in schemas):
        name += "_"
    return name


def copied(old: Table, new: Table, fills: Mapping[tuple[str, str], str]) -> dict[str, str]:
    """Return, for each column written by the copy, the expression over the old table.

    A column that becomes NOT NULL takes its default where the row has NULL; a given value replaces a missing
    one. Columns not named here get their default.
    """
    values: dict[str, str] = {}
    for key, column in new.columns.items():
        if column.generated is not None:
            continue
        before = old.columns.get(key)
        given = fills.get((new.key, key))
        if before is None:
            if given is not None:
                values[key] = given
            continue
        values[key] = _as_new_type(before, column, strict=new.strict)
        if column.not_null and not before.not_null and given is None and column.default is not None:
            given = column.default.text
        if given is not None:
            values[key] = f"coalesce({values[key]}, {given})"
    if not values:
        first = next(column for column in new.columns.values() if column.generated is None)
        values[first.key] = "NULL" if first.default is None else f"({first.default.text})"
    return values


def _as_new_type(before: Column, column: Column, *, strict: bool) -> str:
    """Return the value of a copied column: a STRICT table makes no BLOB of a value, and nothing of a BLOB.

    What its text is not either, is still refused.
    """
    was, now = (affinity(one.type.normal) == "blob" for one in (before, column))
    if strict and was != now and column.type.normal != "any":
        return f"CAST({quote(before.name)} AS {'BLOB' if now else 'TEXT'})"
    return quote(before.name)


def parents_first(schema: Schema, keys: Collection[str]) -> list[Table]:
    """Order tables after those that they reference; cycles keep their order."""
    ordered: dict[str, Table] = {}

    def visit(table: Table, above: frozenset[str]) -> None:
        for link in sorted(table.foreign_keys, key=lambda link: link.table):
            parent = schema.tables.get(link.table)
            if (
                parent is not None
                and parent.key in keys
                and parent.key not in above | ordered.keys()
            ):
                visit(parent, above | {parent.key})
        ordered.setdefault(table.key, table)

    for table in schema.tables.values():
        if table.key in keys:
            visit(table, frozenset({table.key}))
    return list(ordered.values())
