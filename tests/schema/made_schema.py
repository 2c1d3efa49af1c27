"""Schemas as a few choices, and the SQL that they stand for: what `made` draws and edits."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace

from local_mcp_gateway.schema import Schema, inspect

STRICT_TYPES = ("TEXT", "INTEGER", "REAL", "BLOB")
COMPOSITE = "composite"


@dataclass(frozen=True)
class C:
    """A column."""

    name: str
    type: str = "TEXT"
    not_null: bool = False
    default: str = ""
    unique: bool = False
    nocase: bool = False
    check: bool = False
    parent: str = ""
    action: str = ""
    generated: str = ""
    conflict: bool = False

    def sql(self, of: str = "id") -> str:
        q = quoted(self.name)
        if self.generated:
            return f"{q} {self.type} AS (coalesce({quoted(of)}, 0) || 1) {self.generated}"
        words = [q, self.type, "NOT NULL" if self.not_null else ""]
        words += ["ON CONFLICT REPLACE" if self.conflict and self.not_null else "", self.default]
        words += ["UNIQUE" if self.unique else "", "COLLATE NOCASE" if self.nocase else ""]
        words += [f"CHECK ({q} IS NULL OR length({q}) < 99)" if self.check else ""]
        words += [f"REFERENCES {quoted(self.parent)}(id) {self.action}" if self.parent else ""]
        return " ".join(word for word in words if word)


@dataclass(frozen=True)
class T:
    """A table; its key is `id`."""

    name: str
    columns: tuple[C, ...]
    key: str = "INTEGER PRIMARY KEY"
    strict: bool = False
    without_rowid: bool = False
    pair_unique: bool = False
    pair_check: bool = False
    generated_of_other: bool = False
    indexes: frozenset[tuple[str, str]] = frozenset()

    def sql(self) -> str:
        columns = self.columns
        if self.strict:
            columns = tuple(
                replace(c, type=c.type if c.type in STRICT_TYPES else "ANY") for c in columns
            )
        plain = [c for c in columns if not c.generated]
        of = plain[0].name if self.generated_of_other else "id"
        both = self.key == COMPOSITE
        lines = [f"id {'INTEGER NOT NULL' if both else self.key}", *(c.sql(of) for c in columns)]
        if both:
            lines.append(
                f"CONSTRAINT {quoted('key')} PRIMARY KEY (id, {quoted(plain[0].name)} DESC)"
            )
            lines.append("UNIQUE (id)")
        if self.pair_unique and len(plain) > 1:
            lines.append(f"UNIQUE ({quoted(plain[0].name)}, {quoted(plain[1].name)})")
        if self.pair_check and len(plain) > 1:
            lines.append(
                f"CHECK ({quoted(plain[0].name)} IS NOT {quoted(plain[1].name)} OR "
                f"{quoted(self.name)}.id IS NOT NULL)"
            )
        without = self.without_rowid and "AUTOINCREMENT" not in self.key
        options = ", ".join(o for o in ("STRICT" * self.strict, "WITHOUT ROWID" * without) if o)
        return f"CREATE TABLE {quoted(self.name)} (\n  " + ",\n  ".join(lines) + f"\n) {options}"


@dataclass(frozen=True)
class S:
    """A schema."""

    tables: tuple[T, ...]
    views: frozenset[str] = frozenset()
    triggers: frozenset[str] = frozenset()
    stacked: bool = False
    full_text: bool = False

    def sql(self) -> list[str]:
        found = [table.sql() for table in self.tables]
        for table in self.tables:
            names = {column.name for column in table.columns}
            for column, kind in sorted(table.indexes):
                if column in names:
                    found.append(index_sql(table.name, column, kind))
        tables = [table.name for table in self.tables]
        if self.full_text and not self.tables[0].without_rowid:
            plain = next(c for c in self.tables[0].columns if not c.generated)
            found.append(
                f"CREATE VIRTUAL TABLE {quoted('f ' + tables[0])} USING fts5({quoted(plain.name)}, "
                f"content={quoted(tables[0])})"
            )
        for table in self.tables:
            if table.name not in self.views:
                continue
            last = quoted(table.columns[-1].name)
            view = quoted("v " + table.name)
            found.append(f"CREATE VIEW {view} AS SELECT id, {last} FROM {quoted(table.name)}")
            if self.stacked:
                found.append(
                    f"CREATE VIEW {quoted('w ' + table.name)} AS SELECT {last} FROM {view}"
                )
        for table in self.tables:
            if table.name not in self.triggers:
                continue
            name, last = quoted(table.name), quoted(table.columns[-1].name)
            found.append(
                f"CREATE TRIGGER {quoted('t ' + table.name)} AFTER DELETE ON {quoted(tables[0])} "
                f"BEGIN DELETE FROM {name} WHERE id = old.id; END"
                if table.name != tables[0]
                else f"CREATE TRIGGER {quoted('t ' + table.name)} BEFORE UPDATE OF {last} ON {name} "
                f"WHEN old.{last} IS NOT new.{last} BEGIN SELECT {last} FROM {name}; END"
            )
        return found

    def schema(self) -> Schema:
        connection = sqlite3.connect(":memory:", isolation_level=None)
        try:
            for statement in self.sql():
                connection.execute(statement)
            return inspect(connection)
        finally:
            connection.close()


def index_sql(table: str, column: str, kind: str) -> str:
    q = quoted(column)
    name = quoted(f"{table} {column} {kind}")
    body = {
        "plain": q,
        "desc": f"{q} DESC",
        "lower": f"lower({q})",
        "part": f"id) WHERE ({q} IS NOT NULL",
        "unique": f"{q}, id",
        "partly unique": f"{q}) WHERE (id > 1",
    }[kind]
    unique = "UNIQUE " if "unique" in kind else ""
    return f"CREATE {unique}INDEX {name} ON {quoted(table)} ({body})"


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
