from __future__ import annotations

import sqlite3

import pytest

from local_mcp_gateway.schema.hazards import hazards_of
from local_mcp_gateway.schema.inspection import inspect
from local_mcp_gateway.schema.model import DELETING, HazardKind

OLD = """
CREATE TABLE p(id INTEGER PRIMARY KEY, name TEXT, size TEXT, kind TEXT NOT NULL DEFAULT 'x');
CREATE TABLE c(id INTEGER PRIMARY KEY, p INTEGER REFERENCES p(id));
CREATE INDEX p_name ON p(name);
CREATE VIEW v AS SELECT id FROM p;
"""


def kinds(*statements: str) -> list[tuple[str, str]]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(OLD)
    before = inspect(connection)
    for statement in statements:
        connection.execute(statement)
    found = hazards_of(statements, before, inspect(connection))
    connection.close()
    assert all(hazard.message.endswith(".") and "\n" not in hazard.message for hazard in found)
    return [(hazard.kind.value, hazard.object) for hazard in found]


def rebuild(body: str, columns: str) -> tuple[str, ...]:
    return (
        f"CREATE TABLE new_p({body})",
        f"INSERT INTO new_p({columns}) SELECT {columns} FROM p",
        "DROP VIEW v",
        "DROP TABLE p",
        "ALTER TABLE new_p RENAME TO p",
        "CREATE INDEX p_name ON p(name)",
        "CREATE VIEW v AS SELECT id FROM p",
    )


KEPT = "id INTEGER PRIMARY KEY, name TEXT, size TEXT, kind TEXT NOT NULL DEFAULT 'x'"


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE p ADD COLUMN note TEXT",
        "ALTER TABLE p ADD COLUMN n INT NOT NULL DEFAULT 0",
        "CREATE TABLE new(id INTEGER PRIMARY KEY, a TEXT NOT NULL UNIQUE CHECK (a > ''))",
        "CREATE INDEX p_size ON p(size)",
        "UPDATE p SET name = 'x'",
    ],
)
def test_a_change_that_can_hurt_nobody_has_no_hazard(statement: str) -> None:
    assert kinds(statement) == []


def test_a_dropped_table_deletes_its_rows_and_breaks_the_running_version() -> None:
    assert kinds("DROP TABLE c") == [("deletes_data", "c"), ("breaks_running_version", "c")]


def test_a_dropped_column_deletes_its_values() -> None:
    assert kinds("ALTER TABLE p DROP COLUMN size") == [
        ("deletes_data", "p.size"),
        ("breaks_running_version", "p.size"),
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM c WHERE p IS NULL",
        "delete from main.c",
        "DELETE FROM [C]",
        "WITH old AS (SELECT id FROM p) DELETE FROM c WHERE p IN old",
        "WITH a(x) AS (SELECT 1), b AS (SELECT x FROM a) REPLACE INTO c SELECT x, x FROM b",
        "INSERT OR REPLACE INTO c VALUES (1, 1)",
        "UPDATE OR REPLACE c SET id = 1",
    ],
)
def test_a_statement_that_takes_rows_is_said_though_the_schema_stays(statement: str) -> None:
    assert kinds(statement) == [("deletes_data", "c")]


def test_a_column_that_is_renamed_before_its_table_is_not_taken_for_a_dropped_one() -> None:
    assert kinds("ALTER TABLE c RENAME COLUMN p TO q", "ALTER TABLE c RENAME TO d") == [
        ("breaks_running_version", "c"),
        ("breaks_running_version", "c.p"),
    ]


def test_a_renamed_table_keeps_its_rows_but_breaks_the_running_version() -> None:
    assert kinds("ALTER TABLE p RENAME TO q") == [("breaks_running_version", "p")]


def test_a_renamed_column_keeps_its_values_but_breaks_the_running_version() -> None:
    assert kinds('ALTER TABLE p RENAME COLUMN size TO "order"') == [
        ("breaks_running_version", "p.size")
    ]


def test_a_rebuild_is_named_and_deletes_nothing_by_itself() -> None:
    assert kinds(*rebuild(KEPT, "id, name, size, kind")) == [("rebuild", "p")]


def test_a_value_that_the_first_of_two_rebuilds_gives_is_given() -> None:
    body = KEPT.replace("name TEXT", "name TEXT NOT NULL DEFAULT ''")
    first = rebuild(body, "id, name, size, kind")
    given = first[1].replace("SELECT id, name", "SELECT id, coalesce(name, '')")
    again = rebuild(body, "id, name, size, kind")
    assert set(kinds(first[0], given, *first[2:], *again)) == {
        ("rebuild", "p"),
        ("changes_values", "p.name"),
    }


def test_a_rebuild_that_leaves_a_column_out_deletes_its_values() -> None:
    found = kinds(
        *rebuild(
            "id INTEGER PRIMARY KEY, name TEXT, kind TEXT NOT NULL DEFAULT 'x'", "id, name, kind"
        )
    )
    assert ("deletes_data", "p.size") in found


@pytest.mark.parametrize(
    ("old", "new", "kind", "place"),
    [
        ("name TEXT", "name TEXT NOT NULL", "not_null_without_default", "p.name"),
        ("name TEXT", "name TEXT UNIQUE", "adds_unique", "p(name)"),
        ("name TEXT", "name TEXT CHECK (name > '')", "adds_check", "p"),
        ("size TEXT", "size INTEGER", "narrows_type", "p.size"),
        ("id INTEGER PRIMARY KEY", "id TEXT PRIMARY KEY", "changes_primary_key", "p"),
    ],
)
def test_a_stricter_column_is_named(old: str, new: str, kind: str, place: str) -> None:
    assert (kind, place) in kinds(*rebuild(KEPT.replace(old, new), "id, name, size, kind"))


def test_a_unique_index_on_rows_that_exist_is_named() -> None:
    assert kinds("CREATE UNIQUE INDEX u ON p(size)") == [("adds_unique", "p(size)")]


def test_a_dropped_index_is_named_and_a_renamed_one_is_not() -> None:
    assert kinds("DROP INDEX p_name") == [("drops_index", "p_name")]
    assert kinds("DROP INDEX p_name", "CREATE INDEX by_name ON p(name)") == []


def test_a_wider_type_is_no_hazard() -> None:
    assert kinds(
        *rebuild(
            KEPT.replace("id INTEGER", "id INTEGER").replace("size TEXT", "size"),
            "id, name, size, kind",
        )
    ) == [("rebuild", "p")]


def test_only_deleting_kinds_are_the_policys_business() -> None:
    assert {HazardKind.DELETES_DATA} == DELETING
