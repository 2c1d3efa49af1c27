"""What a rehearsal on a scratch database finds out about everything that is pending."""

from __future__ import annotations

import sqlite3

import pytest

from local_mcp_gateway.migrate import Ledger, Plan, Rehearsal
from tests.migrate.workshop import Workshop


def rehearse(shop: Workshop, scratch: sqlite3.Connection) -> Rehearsal:
    return Rehearsal.of(Plan.read(shop.read(), Ledger(scratch)), Ledger(scratch))


@pytest.fixture
def one_row(scratch: sqlite3.Connection) -> sqlite3.Connection:
    """Return the scratch database with a table `a`, which has a row."""
    scratch.execute("CREATE TABLE a (x TEXT)")
    scratch.execute("INSERT INTO a VALUES ('1')")
    return scratch


def test_every_batch_is_committed_and_has_its_fingerprint(
    shop: Workshop, scratch: sqlite3.Connection
) -> None:
    shop.add("0000_a", "CREATE TABLE a (x);")
    shop.add("0001_b", "-- guard: foreign-keys=on\nCREATE TABLE b (x);")
    found = rehearse(shop, scratch)
    assert [step.tag for step in found.steps] == ["0000_a", "0001_b"]
    assert list(found.results) == ["0000_a", "0001_b"]
    assert found.results["0001_b"].fingerprint == Ledger(scratch).fingerprint()
    assert not scratch.in_transaction


def test_rows_that_went_replace_the_hazard_that_they_might(
    shop: Workshop, one_row: sqlite3.Connection
) -> None:
    shop.add("0000_a", "DELETE FROM a;")
    (found,) = rehearse(shop, one_row).hazards
    assert (found.tag, str(found.hazard.kind), found.accepted) == ("0000_a", "deletes_data", False)
    assert "from 1 rows to 0" in found.hazard.message


def test_what_the_file_accepts_is_accepted(shop: Workshop, one_row: sqlite3.Connection) -> None:
    shop.add("0000_a", "-- guard: accept deletes_data\nDELETE FROM a;")
    assert [found.accepted for found in rehearse(shop, one_row).hazards] == [True]


def test_each_migration_is_shown_with_its_result(
    shop: Workshop, scratch: sqlite3.Connection
) -> None:
    shop.add("0000_a", "CREATE TABLE a (x);")
    shop.add("0001_b", "INSERT INTO a VALUES (1), (2);")
    seen = []

    def migrated(connection: sqlite3.Connection, tag: str) -> None:
        seen.append((tag, connection.execute("SELECT count(*) FROM a").fetchone()[0]))

    plan = Plan.read(shop.read(), Ledger(scratch))
    Rehearsal.of(plan, Ledger(scratch), migrated=migrated)
    assert seen == [("0000_a", 0), ("0001_b", 2)]


def test_an_altered_column_of_libsql_is_judged_as_the_rebuild_that_runs(
    shop: Workshop, one_row: sqlite3.Connection
) -> None:
    shop.add("0000_a", "ALTER TABLE a ALTER COLUMN x TO x integer;")
    kinds = {str(found.hazard.kind) for found in rehearse(shop, one_row).hazards}
    assert kinds == {"rebuild", "narrows_type"}
