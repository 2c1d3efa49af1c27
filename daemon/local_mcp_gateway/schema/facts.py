"""A schema as short sentences, one for each thing that can differ.

The fingerprint hashes them and `compare` shows them, so the two can never disagree. The order of
columns is no fact: SQLite can only append a column, so two databases with the same history of
changes may differ in it, and nothing that names its columns can tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from local_mcp_gateway.schema.tokens import quote

if TYPE_CHECKING:
    from local_mcp_gateway.schema.model import Column, ForeignKey, Index, Key, Part, Schema, Table

Fact = tuple[str, str]
"""The kind of thing and its name, such as ("column", "users.email")."""


def facts(schema: Schema) -> dict[Fact, str]:
    """Describe everything in a schema; equal schemas have equal facts and the other way round."""
    found: dict[Fact, str] = {}
    for table in schema.tables.values():
        _table(found, table)
    for index in schema.indexes.values():
        found["index", quote(index.key)] = _index(index)
    for kind, group in (
        ("view", schema.views),
        ("trigger", schema.triggers),
        ("virtual_table", schema.virtual_tables),
    ):
        for code in group.values():
            found[kind, quote(code.key)] = code.statement.normal
    return found


def _table(found: dict[Fact, str], table: Table) -> None:
    name = quote(table.key)
    options = [
        word
        for word, on in (("without rowid", table.without_rowid), ("strict", table.strict))
        if on
    ]
    found["table", name] = " ".join(["table", *options])
    for column in table.columns.values():
        found["column", f"{name}.{quote(column.key)}"] = describe_column(column)
    if table.primary_key is not None:
        found["primary_key", name] = _key(table.primary_key)
    for unique in sorted(table.uniques, key=lambda unique: unique.columns):
        found["unique", f"{name}{_parts(unique.parts)}"] = _key(unique)
    for check in sorted(table.checks, key=lambda check: check.expression.normal):
        found["check", f"{name} ({check.expression.normal})"] = "check"
    for link in sorted(table.foreign_keys, key=lambda link: (link.columns, link.table)):
        found["foreign_key", f"{name}{_link(link)}"] = _actions(link)


def describe_column(column: Column) -> str:
    """Say everything about a column but its name."""
    words = [column.type.normal]
    if column.not_null:
        words.append("not null")
    if column.on_conflict != "abort":
        words.append(f"on conflict {column.on_conflict}")
    if column.default is not None:
        words.append(f"default {column.default.normal}")
    if column.collation != "binary":
        words.append(f"collate {quote(column.collation)}")
    if column.generated is not None:
        words.append(f"as ({column.generated.normal}) {'stored' if column.stored else 'virtual'}")
    return " ".join(word for word in words if word)


def _parts(parts: tuple[Part, ...]) -> str:
    return f"({', '.join(_part(part) for part in parts)})"


def _part(part: Part) -> str:
    text = quote(part.sql.normal) if part.is_column else part.sql.normal
    collation = "" if part.collation == "binary" else f" collate {quote(part.collation)}"
    return text + collation + (" desc" if part.descending else "")


def _key(key: Key) -> str:
    words = [_parts(key.parts)]
    if key.rowid:
        words.append("rowid")
    if key.autoincrement:
        words.append("autoincrement")
    if key.on_conflict != "abort":
        words.append(f"on conflict {key.on_conflict}")
    return " ".join(words)


def _link(link: ForeignKey) -> str:
    columns = ", ".join(map(quote, link.columns))
    return f"({columns}) -> {quote(link.table)}({', '.join(map(quote, link.to))})"


def _actions(link: ForeignKey) -> str:
    deferred = " deferred" if link.deferred else ""
    return f"on update {link.on_update.lower()} on delete {link.on_delete.lower()}{deferred}"


def _index(index: Index) -> str:
    unique = "unique " if index.unique else ""
    where = "" if index.where is None else f" where {index.where.normal}"
    return f"{unique}on {quote(index.table)}{_parts(index.parts)}{where}"
