"""New statements are worded as the schema that they come from."""

from __future__ import annotations

import pytest

from local_mcp_gateway.schema.ddl import (
    column_definition,
    create,
    create_table,
    is_constant,
    references,
    script,
    tidy,
)
from tests.schema.read import schema_of


def test_a_table_is_created_as_it_was_written_also_under_another_name() -> None:
    table = schema_of("CREATE TABLE t (\n    a INT CHECK (t.a > 0), b TEXT -- kept\n  )").tables[
        "t"
    ]
    assert create_table(table) == "CREATE TABLE t (\n  a INT CHECK (t.a > 0), b TEXT -- kept\n)"
    assert create_table(table, "__new_t").startswith(
        "CREATE TABLE __new_t (\n  a INT CHECK (__new_t.a"
    )


def test_an_index_keeps_its_wording() -> None:
    schema = schema_of("CREATE TABLE t (a); CREATE INDEX i  ON t (a  DESC)")
    assert create(schema.indexes["i"]) == "CREATE INDEX i  ON t (a  DESC)"


def test_spaces_inside_a_text_are_left_alone() -> None:
    sql = "CREATE TABLE t (\n    a DEFAULT 'x  \n    y'\n  )"
    assert tidy(sql) == sql


def test_an_added_column_keeps_its_definition() -> None:
    column = (
        schema_of("CREATE TABLE t (id, kind TEXT NOT NULL DEFAULT 'x')").tables["t"].columns["kind"]
    )
    assert column_definition(column) == "kind TEXT NOT NULL DEFAULT 'x'"


@pytest.mark.parametrize(
    ("default", "constant"),
    [
        ("1", True),
        ("-1.5", True),
        ("'now'", True),
        ("NULL", True),
        ("CURRENT_TIMESTAMP", False),
        ("(1 + 1)", False),
    ],
)
def test_only_a_constant_default_can_be_added_to_rows(default: str, *, constant: bool) -> None:
    assert is_constant(default) == constant


def test_a_reference_names_its_actions() -> None:
    schema = schema_of(
        "CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE c (p REFERENCES p ON DELETE CASCADE)"
    )
    (link,) = schema.tables["c"].foreign_keys
    assert references(link) == "REFERENCES p(id) ON DELETE CASCADE"
    assert references(link, "__new_p").startswith("REFERENCES __new_p(id)")


def test_a_script_separates_its_statements_by_breakpoints() -> None:
    assert script(["SELECT 1", "SELECT 2"]) == "SELECT 1;--> statement-breakpoint\nSELECT 2;\n"
