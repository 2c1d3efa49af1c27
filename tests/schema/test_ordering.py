"""Statements come in an order in which each finds what it needs."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from local_mcp_gateway.schema.diff import table_changes
from local_mcp_gateway.schema.ordering import order_statements, parents_first
from tests.schema.read import schema_of

T = "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT);"
AROUND = """
CREATE INDEX i ON t (a);
CREATE VIEW v AS SELECT a FROM t;
CREATE VIEW w AS SELECT a FROM v;
CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END;
"""


def ordered(old: str, new: str) -> list[str]:
    before, after = schema_of(old), schema_of(new)
    changes = table_changes(before, after, required=frozenset())
    statements = order_statements(before, after, changes, fills={})
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.executescript(old)
        for statement in statements:
            connection.execute(statement)
    return statements


def heads(statements: list[str]) -> list[str]:
    return [" ".join(statement.split()[:3]) for statement in statements]


def test_views_and_triggers_make_room_for_a_rebuild_and_come_back() -> None:
    statements = heads(ordered(T + AROUND, T.replace("a TEXT", "a INT") + AROUND))
    assert statements[:2] == ["DROP VIEW w", "DROP VIEW v"]
    assert statements.index("DROP TABLE t") < statements.index("CREATE INDEX i")
    assert statements[-3:] == ["CREATE VIEW v", "CREATE VIEW w", "CREATE TRIGGER g"]


def test_parents_are_created_first_and_dropped_last() -> None:
    both = "CREATE TABLE c (p REFERENCES p(id)); CREATE TABLE p (id INTEGER PRIMARY KEY);"
    assert heads(ordered("", both)) == ["CREATE TABLE p", "CREATE TABLE c"]
    assert heads(ordered(both, "")) == ["DROP TABLE c", "DROP TABLE p"]


def test_tables_that_refer_to_each_other_have_an_order_too() -> None:
    schema = schema_of(
        "CREATE TABLE a (b REFERENCES b(x)); CREATE TABLE b (x PRIMARY KEY, a REFERENCES a)"
    )
    assert sorted(table.name for table in parents_first(schema, {"a", "b"})) == ["a", "b"]


def test_what_did_not_change_is_not_touched() -> None:
    assert ordered(T + AROUND, T + AROUND) == []
