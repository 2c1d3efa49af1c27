"""A table changes by a few ALTERs where SQLite allows them, and by a rebuild elsewhere."""

from __future__ import annotations

import pytest

from local_mcp_gateway.schema import words
from local_mcp_gateway.schema.diff import Change, affected_subset, table_changes
from local_mcp_gateway.schema.renames import Renames
from tests.schema.read import schema_of

T = "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b TEXT)"


def changes(old: str, new: str, *required: tuple[str, str]) -> list[Change]:
    return table_changes(schema_of(old), schema_of(new), required=frozenset(required))


def test_an_equal_table_is_no_change() -> None:
    assert changes(T, T.lower()) == []


@pytest.mark.parametrize(
    ("new", "alters"),
    [
        (T.replace(", b TEXT", ""), ("ALTER TABLE t DROP COLUMN b",)),
        (T.replace("b TEXT", "b TEXT, c INT"), ("ALTER TABLE t ADD COLUMN c INT",)),
        (T.replace("a TEXT", "a INT"), None),
        (T.replace("b TEXT", "b TEXT, c DEFAULT CURRENT_DATE"), None),
        (T + " STRICT", None),
    ],
)
def test_what_an_alter_can_do_is_an_alter_and_the_rest_a_rebuild(
    new: str, alters: tuple[str, ...] | None
) -> None:
    (change,) = changes(T, new)
    assert change.alters == alters


def test_a_value_for_existing_rows_needs_a_rebuild() -> None:
    new = T.replace("b TEXT", "b TEXT, c INT")
    assert changes(T, new, ("t", "c"))[0].alters is None


def test_words_are_the_folded_names_of_a_statement() -> None:
    assert words("""SELECT "A", 'B' FROM [C]""") >= {"a", "c"}
    assert "b" not in words("""SELECT "A", 'B' FROM [C]""")


def test_what_a_change_does_not_concern_is_left_out() -> None:
    rest = "; CREATE TABLE far (x); CREATE TABLE near (t REFERENCES t(id))"
    old, new = schema_of(T + rest), schema_of(T.replace("a TEXT", "a INT") + rest)
    small, _ = affected_subset(old, new, Renames(), {})
    assert "far" not in small.tables
    assert "t" in small.tables
