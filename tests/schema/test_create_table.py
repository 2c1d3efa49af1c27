"""What PRAGMAs do not report is read from the text of CREATE TABLE and CREATE INDEX."""

from __future__ import annotations

from dataclasses import replace

import pytest

from local_mcp_gateway.schema import read_table
from local_mcp_gateway.schema.create_table import affinity, default_fits
from local_mcp_gateway.schema.model import Sql
from tests.schema.read import schema_of


def test_every_clause_that_a_pragma_omits_is_read() -> None:
    clauses = read_table(
        "CREATE TABLE t(a INTEGER PRIMARY KEY AUTOINCREMENT, b TEXT COLLATE NOCASE NOT NULL ON CONFLICT"
        " IGNORE, c AS (b || ')') STORED, CONSTRAINT twice UNIQUE (b) ON CONFLICT REPLACE, CHECK (a > 0))"
        " STRICT"
    )
    assert clauses.columns["b"].collation == "nocase"
    assert clauses.columns["b"].on_conflict == "ignore"
    generated = clauses.columns["c"].generated
    assert generated is not None
    assert generated.text == "b || ')'"
    assert [check.expression.normal for check in clauses.checks] == ["a > 0"]
    assert [(key.name, key.on_conflict) for key in clauses.keys] == [("twice", "replace")]


def test_a_foreign_key_is_read_in_the_order_of_its_definition() -> None:
    clauses = read_table(
        "CREATE TABLE c(a REFERENCES p(x) DEFERRABLE INITIALLY DEFERRED, b, CONSTRAINT other"
        " FOREIGN KEY (b) REFERENCES q)"
    )
    assert clauses.foreign_keys == [(None, True), ("other", False)]


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ("BIGINT", "integer"),
        ("CHARINT", "integer"),
        ("VARCHAR(20)", "text"),
        ("", "blob"),
        ("DOUBLE PRECISION", "real"),
        ("DECIMAL(10, 5)", "numeric"),
    ],
)
def test_the_affinity_of_a_type_follows_the_rules_of_sqlite(declared: str, expected: str) -> None:
    assert affinity(declared.lower()) == expected


def test_a_strict_column_takes_only_a_default_of_its_type() -> None:
    column = schema_of("CREATE TABLE t (a INTEGER DEFAULT 1) STRICT").tables["t"].columns["a"]
    assert default_fits(column)
    assert not default_fits(replace(column, default=Sql("'x'", "'x'")))


def test_the_expressions_of_an_index_are_read_with_its_condition() -> None:
    schema = schema_of(
        "CREATE TABLE t (a, b); CREATE INDEX i ON t (lower(a) DESC, b) WHERE b IS NOT NULL"
    )
    index = schema.indexes["i"]
    assert [(part.sql.normal, part.descending, part.is_column) for part in index.parts] == [
        ("lower ( a )", True, False),
        ("b", False, True),
    ]
    assert index.where is not None
    assert index.where.normal == "b is not null"
