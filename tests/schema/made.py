"""Schema pairs made by Hypothesis: a schema from a small vocabulary, then a few edits to it.

Edits, rather than two schemas from nothing, because that is what people do, and because names that
both have are what makes a plan difficult.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

from hypothesis import strategies as st

from tests.schema.made_schema import COMPOSITE, STRICT_TYPES, C, S, T

NAMES = ("alpha", "Beta", "order", 'd"x y')
COLUMNS = ("a", "B", "select", "d d", "e")
TYPES = (*STRICT_TYPES, "VARCHAR(20)", "")
REFERENCES = (
    "ON DELETE CASCADE",
    "ON DELETE SET NULL ON UPDATE CASCADE",
    "DEFERRABLE INITIALLY DEFERRED",
)
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
