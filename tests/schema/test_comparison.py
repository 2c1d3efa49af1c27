"""Two schemas are compared by what they do, and a difference is one line that a person can read."""

from __future__ import annotations

import pytest

from local_mcp_gateway.schema import compare, fingerprint
from tests.schema.read import schema_of

T = "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT NOT NULL DEFAULT 'x');"


@pytest.mark.parametrize(
    "other",
    [
        "create table \"t\" (id integer primary key, [a] text not null default ('x'));",
        "CREATE TABLE t (id INTEGER, a TEXT NOT NULL DEFAULT 'x', CONSTRAINT k PRIMARY KEY (id));",
        T + " -- a comment",
    ],
)
def test_another_spelling_of_the_same_schema_is_no_difference(other: str) -> None:
    assert compare(schema_of(T), schema_of(other)) == ()
    assert fingerprint(schema_of(T)) == fingerprint(schema_of(other))


@pytest.mark.parametrize(
    ("other", "line"),
    [
        (
            T.replace("NOT NULL ", ""),
            "column t.a is `text default 'x'` where `text not null default 'x'` is expected",
        ),
        (T + "CREATE TABLE u (x, y);", "table u should not be there: (x, y)"),
        ("CREATE TABLE u (x);", "table t is missing: (id, a)"),
        (T + "CREATE UNIQUE INDEX i ON t (a);", "index i should not be there: unique on t(a)"),
    ],
)
def test_a_difference_says_what_is_expected_and_what_was_found(other: str, line: str) -> None:
    expected, found = schema_of(T), schema_of(other)
    assert line in [str(difference) for difference in compare(expected, found)]
    assert fingerprint(expected) != fingerprint(found)


def test_a_surplus_table_is_one_difference_and_its_index_another() -> None:
    found = schema_of(T + "CREATE TABLE u (x, y); CREATE INDEX i ON u (x);")
    kinds = [difference.kind for difference in compare(schema_of(T), found)]
    assert kinds == ["table", "index"]
