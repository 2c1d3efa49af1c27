"""Name a generated migration after what it changes. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from local_mcp_gateway.sql import fold

if TYPE_CHECKING:
    from local_mcp_gateway.schema.model import Schema
    from local_mcp_gateway.schema.renames import Renames

_LONGEST = 60


def slug(text: str) -> str:
    """Return text in a form for file names: words joined by underscores."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def name_of(old: Schema, new: Schema, renames: Renames) -> str:
    """Name the change from `old` to `new`; several changes give the first and the number of the others."""
    said = _changes(old, new, renames)
    if not said:
        return "change"
    name = slug(said[0])
    if len(said) == 2 and len(both := f"{name}_and_{slug(said[1])}") <= _LONGEST:
        return both
    if len(said) > 1:
        name = f"{name}_and_{len(said) - 1}_more"
    return name[:_LONGEST].rstrip("_")


def _changes(old: Schema, new: Schema, renames: Renames) -> list[str]:
    """Describe each change in a few words, the most important first."""
    moved = {fold(name): key for key, name in renames.tables.items()}
    said = [f"rename {key} to {name}" for key, name in renames.tables.items()]
    said += [f"rename {table} {key} to {name}" for (table, key), name in renames.columns.items()]
    said += [
        f"create {t.name}"
        for t in new.tables.values()
        if t.key not in old.tables and t.key not in moved
    ]
    said += [
        f"drop {t.name}"
        for t in old.tables.values()
        if t.key not in new.tables and t.key not in renames.tables
    ]
    fresh = {table.key for table in new.tables.values() if table.key not in old.tables}
    for table in new.tables.values():
        before = old.tables.get(moved.get(table.key, table.key))
        if before is None or before == table:
            continue
        reached = {fold(name) for (owner, _), name in renames.columns.items() if owner == table.key}
        left = {key for owner, key in renames.columns if owner == table.key}
        added = [
            c.name for c in table.columns.values() if c.key not in before.columns.keys() | reached
        ]
        gone = [c.name for c in before.columns.values() if c.key not in table.columns.keys() | left]
        said += [f"add {table.name} {name}" for name in added]
        said += [f"drop {table.name} {name}" for name in gone]
        if not added and not gone and not reached:
            said.append(f"change {table.name}")
    said += [
        f"add {i.name}"
        for k, i in new.indexes.items()
        if k not in old.indexes and i.table not in fresh
    ]
    said += [
        f"drop {i.name}"
        for k, i in old.indexes.items()
        if k not in new.indexes and i.table in new.tables
    ]
    said += [
        f"change {i.name}"
        for k, i in new.indexes.items()
        if k in old.indexes and old.indexes[k] != i
    ]
    for before_group, after_group in (
        (old.virtual_tables, new.virtual_tables),
        (old.views, new.views),
        (old.triggers, new.triggers),
    ):
        said += [
            f"create {code.name}"
            for key, code in after_group.items()
            if key not in before_group and key not in moved
        ]
        said += [
            f"drop {code.name}"
            for key, code in before_group.items()
            if key not in after_group and key not in renames.tables
        ]
        said += [
            f"change {code.name}"
            for key, code in after_group.items()
            if key in before_group and before_group[key] != code
        ]
    return said
