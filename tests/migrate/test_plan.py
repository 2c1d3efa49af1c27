"""What was applied elsewhere, or on rows that an empty database lacks, still says what the schema is."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from local_mcp_gateway.guard import guarded
from tests.harness import Place

LEDGER = "CREATE TABLE __drizzle_migrations (id SERIAL PRIMARY KEY, hash text NOT NULL, created_at numeric)"


def migrate(place: Place) -> list[str]:
    with guarded(place.database, place.folder.path) as report:
        return [step.tag for step in report.applied]


@pytest.fixture
def needs_rows(place: Place) -> Place:
    """A migration that ran on rows, and would fail without them."""
    place.folder.add("a", "CREATE TABLE t (id INTEGER PRIMARY KEY, n INT);")
    migrate(place)
    place.write("INSERT INTO t VALUES (1, 5)")
    place.folder.add(
        "b",
        "CREATE TABLE s (id INTEGER PRIMARY KEY, first INT NOT NULL);",
        "INSERT INTO s VALUES (1, (SELECT n FROM t));",
        down="DROP TABLE s;",
    )
    place.folder.add("c", "CREATE TABLE w (id INTEGER PRIMARY KEY);", down="DROP TABLE w;")
    migrate(place)
    return place


def test_drift_is_found_beside_a_migration_that_needed_rows(needs_rows: Place) -> None:
    needs_rows.write("CREATE TABLE by_hand(x)")
    with guarded(needs_rows.database, needs_rows.folder.path) as report:
        assert [difference.object for difference in report.drift] == ["by_hand"]


def test_a_migration_that_needed_rows_is_in_no_ones_way_back(needs_rows: Place) -> None:
    for left in (2, 1):
        assert needs_rows.run("db", "down", "--yes").code == 0
        assert needs_rows.query("SELECT count(*) FROM __drizzle_migrations") == [(left,)]


@pytest.mark.parametrize("head", ["PRAGMA busy_timeout = 5000;", "-- guard: of the old kind\n"])
def test_what_another_tool_ran_is_not_held_against_an_applied_migration(
    place: Place, head: str
) -> None:
    sql = f"{head}\nCREATE TABLE p (id INTEGER PRIMARY KEY);"
    tag = place.folder.add("a", sql)
    with closing(sqlite3.connect(place.database)) as drizzle:
        drizzle.executescript(f"{sql}{LEDGER}")
        drizzle.execute(
            "INSERT INTO __drizzle_migrations(hash, created_at) VALUES (?, ?)",
            (place.folder.hash_of(tag), place.folder.journal()[0]["when"]),
        )
        drizzle.commit()
    assert place.run("db", "status").code == 0
    place.folder.add("b", "CREATE TABLE b(x);")
    assert migrate(place) == ["0001_b"]
    place.write("CREATE INDEX by_hand ON p(id)")
    assert place.run("db", "status", "--json").json()["drift"][0]["object"] == "by_hand"
