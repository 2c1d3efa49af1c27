"""`db check` of a folder: what has to be fixed, and what a person should look at."""

from __future__ import annotations

import pytest

from local_mcp_gateway.migrate import check_folder
from tests.migrate.workshop import Workshop


def test_a_folder_in_order_has_no_findings(shop: Workshop) -> None:
    shop.add("0000_a", "CREATE TABLE a (x);", down="DROP TABLE a;")
    shop.add("0001_b", "ALTER TABLE a ADD COLUMN y;", down="ALTER TABLE a DROP COLUMN y;")
    found = check_folder(shop.read())
    assert (found.problems, found.warnings, found.hazards) == ((), (), ())


def test_a_migration_that_does_not_run_is_a_problem_and_ends_the_check(shop: Workshop) -> None:
    shop.add("0000_a", "CREATE TABLE a (x);")
    shop.add("0001_b", "ALTER TABLE nowhere ADD COLUMN y;")
    shop.add("0002_c", "DROP TABLE a;")
    found = check_folder(shop.read())
    assert [(problem.code, problem.tag) for problem in found.problems] == [("fails", "0001_b")]
    assert found.hazards == ()


@pytest.mark.parametrize(
    ("down", "said"),
    [
        ("SELECT 1;\nDROP TABLE gone;", "line 2: no such table: gone."),
        ("SELECT 1;\nSELECT '\0';", "line 2: the query contains a null character."),
        ("SELECT 1;\nSELECT lost(1);", "line 2: no such function: lost."),
    ],
)
def test_a_down_file_that_fails_is_a_warning_with_its_line(
    shop: Workshop, down: str, said: str
) -> None:
    shop.add("0000_a", "CREATE TABLE a (x);")
    shop.add("0001_b", "ALTER TABLE a ADD COLUMN y;", down=down)
    (warning,) = check_folder(shop.read()).warnings
    assert (warning.code, warning.tag) == ("down", "0001_b")
    assert warning.message.endswith(said)


def test_a_down_file_that_leads_elsewhere_is_a_warning(shop: Workshop) -> None:
    shop.add("0000_a", "CREATE TABLE a (x);")
    shop.add("0001_b", "ALTER TABLE a ADD COLUMN y;", down="SELECT 1;")
    assert [(w.code, w.tag) for w in check_folder(shop.read()).warnings] == [("down", "0001_b")]


@pytest.mark.parametrize("down", ["", "-- there is none\n"])
def test_a_down_file_without_a_statement_claims_nothing(shop: Workshop, down: str) -> None:
    shop.add("0000_a", "CREATE TABLE a (x);", down=down)
    assert check_folder(shop.read()).warnings == ()


def test_hazards_are_those_of_every_migration_but_the_first(shop: Workshop) -> None:
    shop.add("0000_a", "CREATE TABLE a (x, y);")
    shop.add("0001_b", "ALTER TABLE a DROP COLUMN y;")
    found = check_folder(shop.read()).hazards
    assert {(tag, hazard.object) for tag, hazard in found} == {("0001_b", "a.y")}


def test_an_altered_column_of_libsql_has_its_hazards_and_a_way_back(shop: Workshop) -> None:
    shop.add("0000_a", "CREATE TABLE a (x text);")
    shop.add(
        "0001_b",
        "ALTER TABLE a ALTER COLUMN x TO x integer NOT NULL;",
        down="ALTER TABLE a ALTER COLUMN x TO x text;",
    )
    found = check_folder(shop.read())
    assert (found.problems, found.warnings) == ((), ())
    assert {(str(hazard.kind), hazard.object) for _, hazard in found.hazards} == {
        ("rebuild", "a"),
        ("narrows_type", "a.x"),
        ("not_null_without_default", "a.x"),
        ("breaks_running_version", "a.x"),
    }
