"""Schema pairs made by Hypothesis: a schema from a small vocabulary, then a few edits to it.

Edits, rather than two schemas from nothing, because that is what people do, and because names that
both have are what makes a plan difficult.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from hypothesis import strategies as st

from local_mcp_gateway.schema import Schema, inspect

NAMES = ("alpha", "Beta", "order", 'd"x y')
COLUMNS = ("a", "B", "select", "d d", "e")
TYPES = ("TEXT", "INTEGER", "REAL", "BLOB", "VARCHAR(20)", "")
REFERENCES = (
    "ON DELETE CASCADE",
    "ON DELETE SET NULL ON UPDATE CASCADE",
    "DEFERRABLE INITIALLY DEFERRED",
)
COMPOSITE = "composite"
INDEXES = ("plain", "desc", "lower", "part", "unique", "partly unique")
DEFAULTS = (
    "",
    "",
    "DEFAULT 1",
    "DEFAULT 'x'",
    "DEFAULT -2.5",
    "DEFAULT (1 + 2)",
    "DEFAULT CURRENT_TIMESTAMP",
)


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
                replace(c, type=c.type if c.type in TYPES[:4] else "ANY") for c in columns
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


def choose(draw: Any, **options: Sequence[Any]) -> dict[str, Any]:
    """Draw one of each: a single number stands for all, which is much faster; the first are simplest."""
    number = draw(st.integers(0, prod(map(len, options.values())) - 1))
    chosen = {}
    for name, values in options.items():
        number, at = divmod(number, len(values))
        chosen[name] = values[at]
    return chosen


@st.composite
def columns(draw: Any) -> C:
    column = C(
        **choose(
            draw,
            name=COLUMNS,
            type=TYPES,
            default=DEFAULTS,
            generated=("", "", "", "", "STORED", "VIRTUAL"),
            parent=("", "", "", *NAMES[:2]),
            unique=(False, False, False, True),
            check=(False, False, True),
            nocase=(False, False, True),
            not_null=(False, True),
            action=REFERENCES,
            conflict=(False, False, True),
        )
    )
    if column.generated:
        return replace(column, type="TEXT")
    return replace(column, type="INTEGER") if column.parent else column


@st.composite
def tables(draw: Any, name: str) -> T:
    made = draw(st.lists(columns(), min_size=1, max_size=4, unique_by=lambda c: c.name.lower()))
    if all(column.generated for column in made):
        made = [replace(made[0], generated=""), *made[1:]]
    return T(name, tuple(made), **draw(options()), indexes=draw(indexes()))


@st.composite
def options(draw: Any) -> dict[str, Any]:
    return choose(
        draw,
        key=(
            "INTEGER PRIMARY KEY",
            "INTEGER PRIMARY KEY AUTOINCREMENT",
            "TEXT PRIMARY KEY NOT NULL",
            COMPOSITE,
        ),
        strict=(False, False, True),
        without_rowid=(False, False, True),
        pair_unique=(False, False, True),
        pair_check=(False, False, True),
        generated_of_other=(False, True),
    )


@st.composite
def indexes(draw: Any) -> frozenset[tuple[str, str]]:
    nothing = (None, None, None)
    kinds = (*nothing, *itertools.product(COLUMNS, INDEXES))
    chosen = choose(draw, one=kinds, two=kinds, three=kinds)
    return frozenset(kind for kind in chosen.values() if kind is not None)


@st.composite
def schemas(draw: Any) -> S:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    return S(tuple(draw(tables(name)) for name in names), **draw(code()))


@st.composite
def code(draw: Any) -> dict[str, Any]:
    """Draw which tables have views and triggers, and what else hangs on them."""
    some = [frozenset(names) for n in range(3) for names in itertools.combinations(NAMES, n)]
    return choose(
        draw,
        views=some,
        triggers=(*some, frozenset(NAMES)),
        stacked=(False, True),
        full_text=(False, False, True),
    )


Pair = tuple[S, S, list[str]]
"""A schema, an edited one, and the renames that a person would tell."""


@st.composite
def pairs(draw: Any) -> Pair:
    """Return a schema, an edited one, and no renames."""
    old: S = draw(schemas())
    kept = [
        draw(_edited(table))
        for table in old.tables
        if draw(st.sampled_from((True,) * 5 + (False,)))
    ]
    free = [name for name in NAMES if name not in {table.name for table in kept}]
    if free and (not kept or draw(st.booleans())):
        kept.append(draw(tables(free[0])))
    edited = replace(old, **draw(code())) if draw(st.booleans()) else old
    return old, replace(edited, tables=tuple(kept)), []


@st.composite
def _edited(draw: Any, table: T) -> T:
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(("add", "drop", "column", "indexes", "options")))
        if kind == "add":
            added = draw(columns())
            if added.name.lower() not in {column.name.lower() for column in table.columns}:
                table = replace(table, columns=(*table.columns, added))
        elif kind == "drop" and len(table.columns) > 1:
            at = draw(st.integers(0, len(table.columns) - 1))
            table = replace(table, columns=table.columns[:at] + table.columns[at + 1 :])
        elif kind == "column":
            at = draw(st.integers(0, len(table.columns) - 1))
            other = replace(draw(columns()), name=table.columns[at].name)
            table = replace(table, columns=(*table.columns[:at], other, *table.columns[at + 1 :]))
        elif kind == "indexes":
            table = replace(table, indexes=draw(indexes()))
        elif kind == "options":
            table = replace(table, **draw(options()))
    if all(column.generated for column in table.columns):
        first = replace(table.columns[0], generated="")
        table = replace(table, columns=(first, *table.columns[1:]))
    return table


@st.composite
def renamed_pairs(draw: Any) -> Pair:
    """Return a schema, an edited one in which some of what both have has a new name, and the renames."""
    old, new, _ = draw(pairs())
    said: list[str] = []
    before = {table.name: table for table in old.tables}
    names: dict[str, str] = {}
    made = []
    for number, table in enumerate(new.tables):
        if table.name in before and draw(st.booleans()):
            names[table.name] = f"New {number}"
            said.append(f"{table.name}={names[table.name]}")
    for table in new.tables:
        name = names.get(table.name, table.name)
        kept = (
            {c.name.lower() for c in before[table.name].columns} if table.name in before else set()
        )
        moved = {
            column.name: f"to {column.name}"
            for column in table.columns
            if column.name.lower() in kept and draw(st.booleans())
        }
        said += [f"{name}.{a}={name}.{b}" for a, b in moved.items()]
        columns = tuple(
            replace(c, name=moved.get(c.name, c.name), parent=names.get(c.parent, c.parent))
            for c in table.columns
        )
        indexes = frozenset((moved.get(column, column), kind) for column, kind in table.indexes)
        made.append(replace(table, name=name, columns=columns, indexes=indexes))
    return old, replace(new, tables=tuple(made)), said
