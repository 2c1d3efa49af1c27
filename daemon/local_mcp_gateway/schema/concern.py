"""The part of two schemas that a change concerns, so that a proof need not build the rest. Pure.

Everything that SQLite could look at while the statements run has to be in it: what differs, the tables
that views, triggers and full-text indexes name, the parents of foreign keys, and, where something is
renamed, the children whose text is rewritten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from local_mcp_gateway.schema.diff import words
from local_mcp_gateway.schema.model import Schema
from local_mcp_gateway.schema.tokens import fold

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from local_mcp_gateway.schema.renames import Renames


def concerned(
    old: Schema, new: Schema, renames: Renames, fills: Mapping[tuple[str, str], str]
) -> tuple[Schema, Schema]:
    """Return both schemas without the tables that the change cannot touch."""
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
