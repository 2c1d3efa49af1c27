"""Choose how to change each table: nothing, a few ALTERs, or a rebuild. Pure.

The rules are SQLite's ("ALTER TABLE" §4 to §7): a column can be added unless rows would need a
non-constant value; a column can be dropped while no key, constraint or generated column uses it;
anything else in a table's CREATE statement can only be changed by a rebuild.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from local_mcp_gateway.schema.create_table import default_fits
from local_mcp_gateway.schema.ddl import column_definition, is_constant
from local_mcp_gateway.schema.model import Check, Column, ForeignKey, Schema, Table
from local_mcp_gateway.sql import fold, normal_tokens, quote, unquote

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from local_mcp_gateway.schema.renames import Renames


@dataclass(frozen=True, slots=True)
class Change:
    """How to change a table from old to new: by `alters`, or (None) by a rebuild."""

    old: Table
    new: Table
    alters: tuple[str, ...] | None


def table_changes(
    old: Schema, new: Schema, *, required: frozenset[tuple[str, str]]
) -> list[Change]:
    """Return the changes of all tables in both schemas, in the new order, without unchanged ones.

    `required` are columns (table, column) that get a given value, which only a rebuild can write.
    """
    changes = []
    for table in new.tables.values():
        before = old.tables.get(table.key)
        if before is None or before == table:
            continue
        filled = any(name == table.key for name, _ in required)
        alters = None if filled else _alters(before, table, new)
        changes.append(Change(before, table, alters))
    return changes


def _alters(old: Table, new: Table, schema: Schema) -> tuple[str, ...] | None:
    """Return the ALTER statements, adding columns before dropping others, or None if a rebuild is needed."""
    if (old.without_rowid, old.strict) != (new.without_rowid, new.strict):
        return None
    if old.primary_key != new.primary_key or old.uniques != new.uniques:
        return None
    if any(old.columns[key] != new.columns[key] for key in old.columns.keys() & new.columns.keys()):
        return None
    added = [column for key, column in new.columns.items() if key not in old.columns]
    dropped = [column for key, column in old.columns.items() if key not in new.columns]
    keys = {name for key in (old.primary_key, *old.uniques) if key for name in key.columns}
    if any(column.key in keys for column in dropped) or not all(
        _addable(column, strict=new.strict) for column in added
    ):
        return None
    checks = _own_checks(new.checks - old.checks, added)
    links = _own_links(new.foreign_keys - old.foreign_keys, added)
    gone = {column.key for column in dropped}
    if checks is None or links is None:
        return None
    if not all(words(check.expression.text) & gone for check in old.checks - new.checks):
        return None
    if not all(set(link.columns) & gone for link in old.foreign_keys - new.foreign_keys):
        return None
    name = quote(old.name)
    return tuple(
        f"ALTER TABLE {name} ADD COLUMN "
        + column_definition(
            column,
            checks.get(column.key, ()),
            links.get(column.key),
            parent=_spelling(schema, links.get(column.key)),
        )
        for column in added
    ) + tuple(
        f"ALTER TABLE {name} DROP COLUMN {quote(column.name)}" for column in _users_first(dropped)
    )


def _addable(column: Column, *, strict: bool) -> bool:
    """Tell whether ADD COLUMN accepts it on a table with rows (NOT NULL without default is the author's).

    On a STRICT table SQLite (seen with 3.40) does not check the default against the type, and the table then
    fails its integrity check; only the copy of a rebuild is checked.
    """
    if column.generated is not None:
        return not column.stored
    if column.default is None:
        return True
    return is_constant(column.default.text) and (not strict or default_fits(column))


def _own_checks(checks: Iterable[Check], added: list[Column]) -> dict[str, list[Check]] | None:
    """Give each new CHECK to the last added column that it names; None if one names no added column."""
    owned: dict[str, list[Check]] = {}
    for check in sorted(checks, key=lambda check: check.expression.normal):
        named = words(check.expression.text)
        owner = next((column.key for column in reversed(added) if column.key in named), None)
        if owner is None:
            return None
        owned.setdefault(owner, []).append(check)
    return owned


def _own_links(links: Iterable[ForeignKey], added: list[Column]) -> dict[str, ForeignKey] | None:
    owned: dict[str, ForeignKey] = {}
    names = {column.key for column in added}
    for link in links:
        if len(link.columns) != 1 or link.columns[0] not in names or link.columns[0] in owned:
            return None
        owned[link.columns[0]] = link
    return owned


def _spelling(schema: Schema, link: ForeignKey | None) -> str:
    parent = schema.tables.get(link.table) if link else None
    return parent.name if parent else ""


def _users_first(columns: list[Column]) -> list[Column]:
    """Order generated columns before the columns they use."""
    return sorted(columns, key=lambda column: column.generated is None)


def words(sql: str) -> set[str]:
    """Return the keys of every possible name in a fragment."""
    return {
        fold(unquote(sql[start:end]))
        for kind, _, start, end in normal_tokens(sql)
        if kind in {"word", "name"}
    }


def affected_subset(
    old: Schema, new: Schema, renames: Renames, fills: Mapping[tuple[str, str], str]
) -> tuple[Schema, Schema]:
    """Return both schemas without the tables that the change cannot affect."""
    keys = {
        k for k in old.tables.keys() | new.tables.keys() if old.tables.get(k) != new.tables.get(k)
    }
    for key in old.indexes.keys() | new.indexes.keys():
        before, after = old.indexes.get(key), new.indexes.get(key)
        if before != after:
            keys |= {index.table for index in (before, after) if index}
    keys |= renames.tables.keys() | {fold(name) for name in renames.tables.values()}
    keys |= {table for table, _ in renames.columns}
    keys |= {key for key in old.tables if key.startswith("__new_")}  # names that are taken
    said = list(fills.values())
    for schema in (old, new):
        keys |= {code.content or code.key for code in schema.virtual_tables.values()}
        said += [code.sql for code in (*schema.views.values(), *schema.virtual_tables.values())]
        said += [trigger.sql for trigger in schema.triggers.values()]
    for text in said:
        keys |= words(text)
    if renames.tables or renames.columns:
        keys |= {
            table.key
            for table in old.tables.values()
            if any(link.table in keys for link in table.foreign_keys)
        }
    keys = _with_parents(old, _with_parents(new, keys))
    return _part(old, keys), _part(new, keys)


def _with_parents(schema: Schema, keys: set[str]) -> set[str]:
    found, waiting = set(keys), list(keys)
    while waiting:
        table = schema.tables.get(waiting.pop())
        parents = {link.table for link in table.foreign_keys} - found if table else set()
        found |= parents
        waiting += parents
    return found


def _part(schema: Schema, keys: Collection[str]) -> Schema:
    return Schema(
        {key: table for key, table in schema.tables.items() if key in keys},
        {key: index for key, index in schema.indexes.items() if index.table in keys},
        schema.views,
        schema.triggers,
        schema.virtual_tables,
    )
