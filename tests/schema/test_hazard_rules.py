"""What statements do to tables, and which new constraints existing rows may violate."""

from __future__ import annotations

import pytest

from local_mcp_gateway.schema.hazard_rules import constraint_hazards, read_effects
from tests.schema.read import schema_of


def test_the_effects_of_a_rebuild_lead_back_to_the_table_before() -> None:
    seen = read_effects(
        [
            "CREATE TABLE new_t (a, b)",
            "INSERT INTO new_t (a, b) SELECT a, coalesce(b, '') FROM t",
            "DROP TABLE t",
            "ALTER TABLE new_t RENAME TO t",
        ]
    )
    assert seen.dropped == {"t": "t"}
    assert seen.renamed_tables == {"t": "new_t"}
    assert seen.origin("t", before={"t"}) == "t"
    assert seen.gives("t", "b", new=False)
    assert not seen.gives("t", "a", new=False)


def test_a_renamed_column_is_known_by_its_first_name() -> None:
    seen = read_effects(
        ["ALTER TABLE t RENAME COLUMN a TO b", "ALTER TABLE t RENAME b TO c", "DELETE FROM u"]
    )
    assert seen.renamed_columns == {("t", "c"): "a"}
    assert seen.deleted_from == {"u"}
    assert seen.now("t", "a > 0") == "c > 0"


T = "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, p INT)"
P = "; CREATE TABLE p (id INTEGER PRIMARY KEY)"


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (T.replace("a TEXT", "a TEXT UNIQUE"), "t(a) becomes unique"),
        (T.replace("p INT)", "p INT, CHECK (p > 0))"), "t gets CHECK (p > 0)"),
        (T.replace("p INT", "p INT REFERENCES p"), "t(p) must refer to rows of p"),
        (
            T.replace("id INTEGER PRIMARY KEY, a TEXT", "id INTEGER, a TEXT PRIMARY KEY"),
            "The primary key of t changes",
        ),
    ],
)
def test_a_constraint_that_is_new_to_rows_is_a_hazard(new: str, message: str) -> None:
    before, after = schema_of(T + P), schema_of(new + P)
    seen = read_effects(
        [
            "CREATE TABLE new_t (id, a, p)",
            "INSERT INTO new_t (id, a, p) SELECT id, a, p FROM t",
            "DROP TABLE t",
            "ALTER TABLE new_t RENAME TO t",
        ]
    )
    found = list(constraint_hazards(before.tables["t"], after.tables["t"], before, after, seen))
    assert any(message in hazard.message for hazard in found), found
