"""Values of a schema compare by behaviour, and know the names that SQLite gives them."""

from __future__ import annotations

import pytest

from tests.schema.read import schema_of


def test_spelling_and_the_names_of_constraints_do_not_compare() -> None:
    one = schema_of("CREATE TABLE t (a INT CONSTRAINT positive CHECK (a > 0), UNIQUE (a))")
    other = schema_of("create table T ([A] int unique check (a>0))")
    assert one.tables["t"] == other.tables["t"]
    assert one.tables["t"].sql != other.tables["t"].sql


@pytest.mark.parametrize(
    ("sql", "name"),
    [
        ("CREATE TABLE t (a)", "rowid"),
        ("CREATE TABLE t (rowid, a)", "_rowid_"),
        ("CREATE TABLE t (rowid, _rowid_, oid)", None),
        ("CREATE TABLE t (a PRIMARY KEY) WITHOUT ROWID", None),
    ],
)
def test_a_table_knows_a_name_of_its_rowid(sql: str, name: str | None) -> None:
    assert schema_of(sql).tables["t"].rowid_name == name


def test_an_integer_primary_key_is_the_rowid_itself() -> None:
    table = schema_of("CREATE TABLE t (id INTEGER PRIMARY KEY, a)").tables["t"]
    assert table.is_rowid("id")
    assert not table.is_rowid("a")


def test_a_schema_lists_the_indexes_of_a_table() -> None:
    schema = schema_of(
        "CREATE TABLE t (a); CREATE TABLE u (a); CREATE INDEX i ON t (a); CREATE INDEX j ON u (a)"
    )
    assert [index.name for index in schema.indexes_of("t")] == ["i"]
