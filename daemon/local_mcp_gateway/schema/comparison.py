"""Compare the expected schema with the actual one, and fingerprint a schema."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING

from local_mcp_gateway.sql import quote

if TYPE_CHECKING:
    from local_mcp_gateway.schema.model import Column, ForeignKey, Index, Key, Part, Schema, Table


Fact = tuple[str, str]
"""The kind of object and its name, such as ("column", "users.email")."""


def describe(schema: Schema) -> dict[Fact, str]:
    """Describe everything in a schema; two schemas are equal exactly if their descriptions are."""
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
    """Describe a column without its name."""
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


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference; `expected` is None for a surplus object, `found` is None for a missing one."""

    kind: str
    object: str
    expected: str | None
    found: str | None

    def __str__(self) -> str:
        """Describe it in one line."""
        thing = f"{self.kind.replace('_', ' ')} {self.object}"
        if self.found is None:
            return f"{thing} is missing: {self.expected}"
        if self.expected is None:
            return f"{thing} should not be there: {self.found}"
        return f"{thing} is `{self.found}` where `{self.expected}` is expected"


def compare(expected: Schema, found: Schema) -> tuple[Difference, ...]:
    """Return every difference; none when the two schemas behave the same.

    A missing or surplus table is one difference, not one for each of its columns; its indexes and triggers
    are named, since they can be dropped one by one.
    """
    both = expected.tables.keys() & found.tables.keys()
    old = describe(
        replace(
            expected, tables={key: expected.tables[key] for key in expected.tables if key in both}
        )
    )
    new = describe(
        replace(found, tables={key: found.tables[key] for key in found.tables if key in both})
    )
    tables = [
        Difference("table", quote(table.name), _columns(expected, key), _columns(found, key))
        for key, table in {**expected.tables, **found.tables}.items()
        if key not in both
    ]
    return (
        *tables,
        *(
            Difference(kind, name, old.get((kind, name)), new.get((kind, name)))
            for kind, name in {**old, **new}
            if old.get((kind, name)) != new.get((kind, name))
        ),
    )


def _columns(schema: Schema, key: str) -> str | None:
    table = schema.tables.get(key)
    return (
        None if table is None else f"({', '.join(quote(c.name) for c in table.columns.values())})"
    )


def fingerprint(schema: Schema) -> str:
    """Return the SHA-256, in hex, of the schema's behaviour (not its spelling)."""
    lines = sorted(f"{kind}\0{name}\0{text}" for (kind, name), text in describe(schema).items())
    return sha256("\1".join(lines).encode("utf-8", "surrogatepass")).hexdigest()
