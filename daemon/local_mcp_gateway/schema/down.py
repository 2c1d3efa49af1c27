"""Derive the down migration from the two schemas.

A dropped column cannot get its values back. If it needs a value, it gets a plain placeholder (empty text,
zero), and the file says so. Where no placeholder could be right (in a key or a foreign key), a person has
to write the down migration or restore the backup.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from local_mcp_gateway.schema.create_table import affinity
from local_mcp_gateway.schema.plan import Plan, make_plan
from local_mcp_gateway.sql import fold, quote

if TYPE_CHECKING:
    from local_mcp_gateway.schema.inspect import Prepare
    from local_mcp_gateway.schema.model import Column, Schema, Table
    from local_mcp_gateway.schema.renames import Renames

_STAND_IN = {"text": "''", "blob": "x''", "integer": "0", "real": "0.0", "numeric": "0"}


class NotDerivable(Exception):
    """No down migration could be right for every row; the message says why."""


def missing_values(old: Schema, new: Schema, renames: Renames) -> list[tuple[Table, Column]]:
    """Return the columns of `new` that need a value which rows of `old` do not have."""
    origins = {fold(name): key for key, name in renames.tables.items()}
    moved = {(table, fold(name)): key for (table, key), name in renames.columns.items()}
    found = []
    for table in new.tables.values():
        before = old.tables.get(origins.get(table.key, table.key))
        if before is None:
            continue
        for key, column in table.columns.items():
            place = (table.key, key)
            left = place in renames.columns and place not in moved  # a different column by now
            source = None if left else before.columns.get(moved.get(place, key))
            bare = column.default is None or column.default.normal == "null"
            needed = column.not_null and bare and column.generated is None
            has = source is not None and (source.not_null or before.is_rowid(source.key))
            if needed and not has and not table.is_rowid(key):
                found.append((table, column))
    return found


def derive_down(
    old: Schema, new: Schema, renames: Renames, *, prepare: Prepare | None = None
) -> Plan:
    """Return the plan from `new` back to `old`; raises NotDerivable."""
    back = renames.inverse()
    fills = {
        (table.key, column.key): _stand_in(old, table, column)
        for table, column in missing_values(new, old, back)
    }
    return make_plan(new, old, renames=back, fills=fills, prepare=prepare)


def _stand_in(schema: Schema, table: Table, column: Column) -> str:
    place = f"{quote(table.name)}.{quote(column.name)}"
    keys = [key.columns for key in (table.primary_key, *table.uniques) if key]
    keys += [
        tuple(part.sql.normal for part in index.parts)
        for index in schema.indexes_of(table.key)
        if index.unique
    ]
    if any(column.key in key for key in keys):
        raise NotDerivable(f"the values of {place} are gone, and they have to be unique")
    if any(column.key in link.columns for link in table.foreign_keys):
        raise NotDerivable(
            f"the values of {place} are gone, and they have to name rows of another table"
        )
    return _STAND_IN[affinity(column.type.normal)]
