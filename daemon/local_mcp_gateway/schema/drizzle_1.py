"""Write snapshots in the format of Drizzle 1.x (version 7): a flat list of entities, after one or more parents.

What a constraint is called matters there: Drizzle tells a constraint that it names by its own rule from
one that a person has named. Reading them is in `drizzle`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from local_mcp_gateway.schema.drizzle import (
    Json,
    checks_by_name,
    default_as_written,
    links_of,
    parts_as_written,
    query_of,
    read_snapshot,
    write_snapshot,
)
from local_mcp_gateway.sql import fold

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from local_mcp_gateway.schema.inspection import Prepare
    from local_mcp_gateway.schema.model import Column, Index, Schema, Table


def write_snapshot_7(schema: Schema, previous: Sequence[str]) -> Json:
    """Return the version 7 snapshot of a schema, with a new id after those of `previous`."""
    tables = schema.tables.values()
    entities: list[Json] = [{"name": table.name, "entityType": "tables"} for table in tables]
    for kind in (_columns, _indexes, _foreign_keys, _primary_keys, _uniques, _checks):
        entities += [entity for table in tables for entity in kind(schema, table)]
    entities += [
        {
            "name": view.name,
            "definition": query_of(view.sql),
            "isExisting": False,
            "error": None,
            "entityType": "views",
        }
        for view in schema.views.values()
    ]
    return {
        "version": "7",
        "dialect": "sqlite",
        "id": str(uuid4()),
        "prevIds": list(previous),
        "ddl": entities,
        "renames": [],
    }


def as_snapshots_see(
    schema: Schema, *, version: str = "6", prepare: Prepare | None = None
) -> Schema:
    """Reduce a schema to what a snapshot of that version can express, for a comparison with one."""
    written = write_snapshot_7(schema, ()) if version == "7" else write_snapshot(schema)
    return read_snapshot(written, prepare=prepare)


def _columns(_: Schema, table: Table) -> Iterable[Json]:
    key = table.primary_key
    for column in table.columns.values():
        alone = key is not None and key.columns == (column.key,)
        yield {
            "table": table.name,
            "name": column.name,
            "type": column.type.text.lower(),
            "notNull": column.not_null,
            "autoincrement": alone and key is not None and key.autoincrement,
            "default": None if column.default is None else default_as_written(column.default.text),
            "generated": _generated(column),
            "entityType": "columns",
        }


def _generated(column: Column) -> Json | None:
    if column.generated is None:
        return None
    kind = "stored" if column.stored else "virtual"
    return {"as": f"({column.generated.text})", "type": kind}


def _indexes(schema: Schema, table: Table) -> Iterable[Json]:
    for index in schema.indexes_of(table.key):
        yield {
            "table": table.name,
            "name": index.name,
            "columns": list(_parts(index, table)),
            "isUnique": index.unique,
            "where": None if index.where is None else index.where.text,
            "origin": "manual",
            "entityType": "indexes",
        }


def _parts(index: Index, table: Table) -> Iterable[Json]:
    for text, bare in parts_as_written(index):
        name = table.columns[fold(text)].name if bare and fold(text) in table.columns else text
        yield {"value": name, "isExpression": not bare}


def _foreign_keys(schema: Schema, table: Table) -> Iterable[Json]:
    for name, link in links_of(schema, table):
        usual = "_".join(
            ("fk", table.name, *link["columnsFrom"], link["tableTo"], *link["columnsTo"], "fk")
        )
        yield {
            "table": table.name,
            "name": name or usual,
            "columns": link["columnsFrom"],
            "tableTo": link["tableTo"],
            "columnsTo": link["columnsTo"],
            "onUpdate": link["onUpdate"].upper(),
            "onDelete": link["onDelete"].upper(),
            "nameExplicit": (name or usual) != usual,
            "entityType": "fks",
        }


def _primary_keys(_: Schema, table: Table) -> Iterable[Json]:
    key = table.primary_key
    if key is not None:
        usual = f"{table.name}_pk"
        yield {
            "table": table.name,
            "name": key.name or usual,
            "columns": _names(table, key.columns),
            "nameExplicit": (key.name or usual) != usual,
            "entityType": "pks",
        }


def _uniques(_: Schema, table: Table) -> Iterable[Json]:
    for unique in sorted(table.uniques, key=lambda unique: unique.columns):
        columns = _names(table, unique.columns)
        usual = "_".join((table.name, *columns, "unique"))
        yield {
            "table": table.name,
            "name": unique.name or usual,
            "columns": columns,
            "nameExplicit": (unique.name or usual) != usual,
            "entityType": "uniques",
        }


def _checks(_: Schema, table: Table) -> Iterable[Json]:
    for name, check in checks_by_name(table):
        yield {
            "table": table.name,
            "name": name,
            "value": check.expression.text,
            "entityType": "checks",
        }


def _names(table: Table, columns: Iterable[str]) -> list[str]:
    return [table.columns[column].name for column in columns]
