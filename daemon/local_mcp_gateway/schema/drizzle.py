"""Read Drizzle's snapshots, and write those of version 6; `drizzle_1` writes version 7.

A snapshot cannot express everything in SQLite (COLLATE, WITHOUT ROWID, STRICT, triggers, virtual tables,
index order, ON CONFLICT, deferred keys). Plans therefore start from the replay of the folder, never from
a snapshot. It is written so that `drizzle-kit generate` can continue from it.

Reading turns it into the SQL that Drizzle would have written and lets SQLite interpret that.
"""

from __future__ import annotations

import re
import sqlite3
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from local_mcp_gateway.errors import SchemaProblem
from local_mcp_gateway.schema.ddl import is_constant
from local_mcp_gateway.schema.inspection import Prepare, inspect, open_memory
from local_mcp_gateway.sql import NormalToken, closing, fold, normal_tokens, quote, unquote

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from local_mcp_gateway.schema.model import Check, Column, Index, Schema, Table

Json = dict[str, Any]

FIRST = "00000000-0000-0000-0000-000000000000"
"""`prevId` of the first snapshot of a chain."""

_NUMBER = re.compile(r"[+-]?(\d+(\.\d+)?|\.\d+)")


def write_snapshot(schema: Schema, previous: str = FIRST, *, named_in: Json | None = None) -> Json:
    """Return the version 6 snapshot of a schema, with a new id after `previous`.

    `named_in` is an earlier one. The names that a person has given to keys are taken from it: the SQL of
    Drizzle 0.x does not have them.
    """
    given = _given_names(named_in)
    written = {index.name: parts_as_written(index) for index in schema.indexes.values()}
    expressions = {
        name: {"columns": {text: {"isExpression": True} for text, bare in parts if not bare}}
        for name, parts in written.items()
        if not all(bare for _, bare in parts)
    }
    return {
        "version": "6",
        "dialect": "sqlite",
        "id": str(uuid4()),
        "prevId": previous,
        "tables": {table.name: _table(schema, table, given) for table in schema.tables.values()},
        "views": {
            view.name: {
                "columns": {},
                "name": view.name,
                "isExisting": False,
                "definition": query_of(view.sql),
            }
            for view in schema.views.values()
        },
        "enums": {},
        "_meta": {"schemas": {}, "tables": {}, "columns": {}},
        "internal": {"indexes": expressions},
    }


_Given = dict[tuple[str, ...], str]
"""The names that a person gave: of a foreign key by its columns and both tables, of a composite key by its table."""


def _given_names(snapshot: Json | None) -> _Given:
    found: _Given = {}
    try:
        for table in (snapshot or {"tables": {}})["tables"].values():
            for link in table["foreignKeys"].values():
                if link["name"] != _usual_name(link):
                    found[table["name"], *link["columnsFrom"], link["tableTo"]] = link["name"]
            for key in table["compositePrimaryKeys"].values():
                if key["name"] != f"{table['name']}_{'_'.join(key['columns'])}_pk":
                    found[table["name"],] = key["name"]
    except (KeyError, TypeError, AttributeError):
        return {}  # damaged: `db check` says so
    return found


def _table(schema: Schema, table: Table, given: _Given) -> Json:
    key = table.primary_key
    names = {column.key: column.name for column in table.columns.values()}
    composite = [names[column] for column in key.columns] if key and len(key.parts) > 1 else []
    pk_name = given.get((table.name,), f"{table.name}_{'_'.join(composite)}_pk")
    uniques = {
        unique.name or f"{table.name}_{'_'.join(unique.columns)}_unique": [
            names[c] for c in unique.columns
        ]
        for unique in sorted(table.uniques, key=lambda unique: unique.columns)
    }
    links = [link for _, link in links_of(schema, table)]
    for link in links:
        link["name"] = given.get((table.name, *link["columnsFrom"], link["tableTo"]), link["name"])
    return {
        "name": table.name,
        "columns": {c.name: _column(table, c, alone=not composite) for c in table.columns.values()},
        "indexes": {index.name: _index(index, names) for index in schema.indexes_of(table.key)},
        "foreignKeys": {link["name"]: link for link in links},
        "compositePrimaryKeys": {pk_name: {"columns": composite, "name": pk_name}}
        if composite
        else {},
        "uniqueConstraints": {n: {"name": n, "columns": columns} for n, columns in uniques.items()},
        "checkConstraints": {
            name: {"name": name, "value": check.expression.text}
            for name, check in checks_by_name(table)
        },
    }


def _column(table: Table, column: Column, *, alone: bool) -> Json:
    key = table.primary_key
    primary = alone and key is not None and key.columns == (column.key,)
    found: Json = {
        "name": column.name,
        "type": column.type.text.lower(),
        "primaryKey": primary,
        "notNull": column.not_null or (primary and key is not None and key.rowid),
        "autoincrement": primary and key is not None and key.autoincrement,
    }
    if column.default is not None:
        found["default"] = _default(column.default.text)
    if column.generated is not None:
        kind = "stored" if column.stored else "virtual"
        found["generated"] = {"as": f"({column.generated.text})", "type": kind}
    return found


def _default(text: str) -> str | int | float | bool:
    """Return a default as Drizzle stores it: numbers and booleans as such, the rest as SQL."""
    if _NUMBER.fullmatch(text):
        return float(text) if "." in text else int(text)
    if text.lower() in {"true", "false"}:
        return text.lower() == "true"
    return default_as_written(text)


def default_as_written(text: str) -> str:
    """Return a default as a column's definition has it: an expression in parentheses."""
    return text if is_constant(text) or text.upper().startswith("CURRENT_") else f"({text})"


def checks_by_name(table: Table) -> list[tuple[str, Check]]:
    """Return the CHECKs of a table in a fixed order, each with a name."""
    checks = sorted(table.checks, key=lambda check: check.expression.normal)
    return [(c.name or f"{table.name}_check{at}", c) for at, c in enumerate(checks, 1)]


def _index(index: Index, names: Mapping[str, str]) -> Json:
    columns = [
        names.get(fold(text), text) if bare else text for text, bare in parts_as_written(index)
    ]
    found: Json = {"name": index.name, "columns": columns, "isUnique": index.unique}
    if index.where is not None:
        found["where"] = index.where.text
    return found


def parts_as_written(index: Index) -> list[tuple[str, bool]]:
    """Return each part of an index as text, and whether it is the bare name of a column.

    Drizzle knows no order or collation: what has one is an expression there.
    """
    found = normal_tokens(index.sql)
    opening = next(at for at, token in enumerate(found) if token[1] == "(")
    end = closing(found, opening)
    parts: list[list[NormalToken]] = [[]]
    depth = 0
    for token in found[opening + 1 : end]:
        depth += {"(": 1, ")": -1}.get(token[1], 0)
        if token[1] == "," and not depth:
            parts.append([])
        else:
            parts[-1].append(token)
    texts = [(index.sql[part[0][2] : part[-1][3]], len(part) == 1) for part in parts]
    return [(unquote(text) if bare else text, bare) for text, bare in texts]


def links_of(schema: Schema, table: Table) -> Iterable[tuple[str | None, Json]]:
    """Yield each foreign key as version 6 has it, after the name that the schema gives it."""
    for link in sorted(table.foreign_keys, key=lambda link: (link.columns, link.table)):
        parent = schema.tables.get(link.table)
        columns = [table.columns[column].name for column in link.columns]
        to = [parent.columns[c].name if parent and c in parent.columns else c for c in link.to]
        target = parent.name if parent else link.table
        found = {
            "tableFrom": table.name,
            "tableTo": target,
            "columnsFrom": columns,
            "columnsTo": to,
            "onDelete": link.on_delete.lower(),
            "onUpdate": link.on_update.lower(),
        }
        yield link.name, {"name": _usual_name(found), **found}


def _usual_name(link: Json) -> str:
    """Return the name that Drizzle 0.x gives to a foreign key by itself."""
    parts = (link["tableFrom"], *link["columnsFrom"], link["tableTo"], *link["columnsTo"], "fk")
    return "_".join(parts)


def query_of(sql: str) -> str:
    """Return the query of a view: the text after CREATE VIEW name AS."""
    at = next(end for kind, word, _, end in normal_tokens(sql) if kind == "word" and word == "as")
    return sql[at:].strip()


def read_snapshot(
    snapshot: Json, name: str = "The snapshot", *, prepare: Prepare | None = None
) -> Schema:
    """Return the schema that a snapshot of version 6 or 7 describes; raises SchemaProblem."""
    version = str(snapshot.get("version"))
    try:
        if version == "6":
            statements = list(_version_6(snapshot))
        elif version == "7":
            statements = list(_version_7(snapshot.get("ddl") or ()))
        else:
            raise SchemaProblem(
                f"{name} is of version {version}.",
                hint="Versions 6 and 7 are read; bring older ones up with `drizzle-kit up`.",
            )
    except (KeyError, TypeError, AttributeError) as error:
        raise SchemaProblem(f"{name} is damaged: {error!r} is not as expected.") from None
    connection = open_memory(prepare)
    try:
        for statement in statements:
            connection.execute(statement)
        return inspect(connection)
    except sqlite3.Error as error:
        raise SchemaProblem(f"{name} cannot be turned into a schema: {error}.") from None
    finally:
        connection.close()


def _version_6(snapshot: Json) -> Iterable[str]:
    internal = snapshot.get("internal") or {}
    expressions = {
        name: {
            text for text, said in (index.get("columns") or {}).items() if said.get("isExpression")
        }
        for name, index in (internal.get("indexes") or {}).items()
    }
    for table in snapshot["tables"].values():
        lines = [_column_sql(column) for column in table["columns"].values()]
        lines += [
            f"PRIMARY KEY({_names(key['columns'])})"
            for key in table["compositePrimaryKeys"].values()
        ]
        lines += [_link_sql(link, link["columnsFrom"]) for link in table["foreignKeys"].values()]
        lines += [
            f"CONSTRAINT {quote(name)} UNIQUE({_names(unique['columns'])})"
            for name, unique in (table.get("uniqueConstraints") or {}).items()
        ]
        lines += [
            f"CONSTRAINT {quote(name)} CHECK({check['value']})"
            for name, check in (table.get("checkConstraints") or {}).items()
        ]
        yield f"CREATE TABLE {quote(table['name'])} ({', '.join(lines)})"
        for index in table["indexes"].values():
            known = expressions.get(index["name"], set())
            parts = [
                text if text in known or text not in table["columns"] else quote(text)
                for text in index["columns"]
            ]
            yield _index_sql(index, table["name"], parts)
    for view in (snapshot.get("views") or {}).values():
        if not view.get("isExisting"):
            yield f"CREATE VIEW {quote(view['name'])} AS {view['definition']}"


def _version_7(ddl: Sequence[Json]) -> Iterable[str]:
    def of(kind: str, table: str | None = None) -> list[Json]:
        return [
            e for e in ddl if e["entityType"] == kind and (table is None or e.get("table") == table)
        ]

    for table in of("tables"):
        name = table["name"]
        keys = of("pks", name)
        alone = [key["columns"][0] for key in keys if len(key["columns"]) == 1]
        lines = [
            _column_sql({**column, "primaryKey": column["name"] in alone})
            for column in of("columns", name)
        ]
        lines += [
            f"PRIMARY KEY({_names(key['columns'])})" for key in keys if len(key["columns"]) > 1
        ]
        lines += [_link_sql(link, link["columns"]) for link in of("fks", name)]
        lines += [
            f"CONSTRAINT {quote(u['name'])} UNIQUE({_names(u['columns'])})"
            for u in of("uniques", name)
        ]
        lines += [f"CONSTRAINT {quote(c['name'])} CHECK({c['value']})" for c in of("checks", name)]
        yield f"CREATE TABLE {quote(name)} ({', '.join(lines)})"
    for index in of("indexes"):
        parts = [c["value"] if c["isExpression"] else quote(c["value"]) for c in index["columns"]]
        yield _index_sql(index, index["table"], parts)
    for view in of("views"):
        if not view.get("isExisting"):
            yield f"CREATE VIEW {quote(view['name'])} AS {view['definition']}"


def _column_sql(column: Json) -> str:
    words = [quote(column["name"]), column["type"]]
    if column.get("primaryKey"):
        words.append("PRIMARY KEY" + (" AUTOINCREMENT" if column.get("autoincrement") else ""))
    default = column.get("default")
    if default is not None:
        words.append(f"DEFAULT {str(default).lower() if isinstance(default, bool) else default}")
    if column.get("generated"):
        words.append(
            f"GENERATED ALWAYS AS {column['generated']['as']} {column['generated']['type']}"
        )
    if column.get("notNull"):
        words.append("NOT NULL")
    return " ".join(words)


def _link_sql(link: Json, columns: Sequence[str]) -> str:
    return (
        f"FOREIGN KEY ({_names(columns)}) REFERENCES {quote(link['tableTo'])}({_names(link['columnsTo'])})"
        f" ON UPDATE {link.get('onUpdate') or 'no action'} ON DELETE {link.get('onDelete') or 'no action'}"
    )


def _index_sql(index: Json, table: str, parts: Sequence[str]) -> str:
    unique = "UNIQUE " if index["isUnique"] else ""
    where = f" WHERE {index['where']}" if index.get("where") else ""
    return (
        f"CREATE {unique}INDEX {quote(index['name'])} ON {quote(table)} ({', '.join(parts)}){where}"
    )


def _names(columns: Sequence[str]) -> str:
    return ", ".join(map(quote, columns))
