"""One batch: counted, run, verified and recorded in the caller's transaction. And the rehearsal of all batches."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from local_mcp_gateway.database import Run
from local_mcp_gateway.errors import DoubleQuotedString, VerificationFailed
from local_mcp_gateway.migrate import Ledger, Plan, Rehearsal, apply_batch
from local_mcp_gateway.migrate.batch import BatchResult
from tests.migrate.workshop import Workshop


class Heard:
    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, event: str, /, **fields: Any) -> None:
        self.events.append((event, fields))


def plan(shop: Workshop, scratch: sqlite3.Connection) -> Plan:
    return Plan.read(shop.read(), Ledger(scratch))


def test_the_ledger_and_the_fingerprint_are_written_with_the_schema(
    shop: Workshop, scratch: sqlite3.Connection
) -> None:
    shop.add("0000_a", "CREATE TABLE a (x);")
    ledger = Ledger(scratch)
    result = apply_batch(plan(shop, scratch), ledger)
    assert [step.tag for step in result.steps] == ["0000_a"]
    assert ledger.recorded_fingerprint() == result.fingerprint == ledger.fingerprint()
    assert plan(shop, scratch).pending == ()


def test_a_table_that_is_rebuilt_badly_is_refused_unless_a_rehearsal_has_seen_it(
    shop: Workshop, scratch: sqlite3.Connection
) -> None:
    scratch.execute("CREATE TABLE a (x, y)")
    scratch.execute("INSERT INTO a VALUES (1, 2), (3, 4)")
    shop.add(
        "0000_a",
        "CREATE TABLE n (x, y); INSERT INTO n (x, y) SELECT y, x FROM a; DROP TABLE a;"
        " ALTER TABLE n RENAME TO a;",
    )
    scratch.execute("BEGIN")
    with pytest.raises(VerificationFailed, match=r"a\.x would get the values of y"):
        apply_batch(plan(shop, scratch), Ledger(scratch))
    scratch.execute("ROLLBACK")
    scratch.execute("BEGIN")
    scratch.execute("DELETE FROM a")  # without rows nothing is lost
    rehearsed = apply_batch(plan(shop, scratch), Ledger(scratch))
    scratch.execute("ROLLBACK")
    assert apply_batch(plan(shop, scratch), Ledger(scratch), rehearsed=rehearsed).changes == ()


def test_a_schema_that_is_not_the_rehearsed_one_is_refused(
    shop: Workshop, scratch: sqlite3.Connection
) -> None:
    shop.add("0000_a", "CREATE TABLE a (x);")
    rehearsed = BatchResult((), Ledger(scratch).fingerprint(), matches_migrations=True)
    with pytest.raises(VerificationFailed, match="After 0000_a the live schema differs"):
        apply_batch(plan(shop, scratch), Ledger(scratch), rehearsed=rehearsed)


@pytest.mark.parametrize(
    ("by_hand", "matches_migrations"),
    [
        ("CREATE TABLE b (x, y)", True),
        ("CREATE TABLE b (x)", False),
        ("CREATE TABLE b (x, y); CREATE TABLE c (x)", False),
        ("CREATE TABLE b (x, y); CREATE INDEX other ON b (x)", False),
    ],
)
def test_the_fingerprint_is_recorded_only_of_what_the_migrations_alone_make(
    shop: Workshop, scratch: sqlite3.Connection, by_hand: str, *, matches_migrations: bool
) -> None:
    scratch.executescript(by_hand)
    shop.add("0000_a", "CREATE TABLE a (x); CREATE TABLE IF NOT EXISTS b (x, y);")
    result = apply_batch(plan(shop, scratch), Ledger(scratch))
    assert result.matches_migrations is matches_migrations
    assert (Ledger(scratch).recorded_fingerprint() is not None) is matches_migrations


def test_shadow_tables_and_quotes_in_names_are_made_by_their_text(
    shop: Workshop, scratch: sqlite3.Connection
) -> None:
    text = 'CREATE VIRTUAL TABLE IF NOT EXISTS f USING fts5 (x); CREATE TABLE IF NOT EXISTS "q""t" (x);'
    scratch.executescript(text)
    shop.add("0000_a", text)
    assert apply_batch(plan(shop, scratch), Ledger(scratch)).matches_migrations


def test_a_string_in_double_quotes_is_refused_with_a_backup_and_reported_without(
    shop: Workshop, scratch: sqlite3.Connection
) -> None:
    shop.add("0000_a", 'CREATE TABLE a (x); INSERT INTO a SELECT "word";')
    heard = Heard()
    scratch.execute("BEGIN")
    with pytest.raises(DoubleQuotedString):
        apply_batch(plan(shop, scratch), Ledger(scratch), backup="app-1")
    scratch.execute("ROLLBACK")
    apply_batch(plan(shop, scratch), Ledger(scratch), run=Run(emit=heard))
    assert [(event, fields["kind"]) for event, fields in heard.events] == [
        ("guard.hazard_found", "double_quoted_strings")
    ]


def test_a_view_that_an_added_column_breaks_is_refused(
    shop: Workshop, scratch: sqlite3.Connection
) -> None:
    for sql in (
        "CREATE TABLE a (id, title)",
        "CREATE TABLE b (id)",
        "INSERT INTO b VALUES (1)",
        "CREATE VIEW both AS SELECT title FROM a JOIN b USING (id)",
    ):
        scratch.execute(sql)
    shop.add("0000_title", "ALTER TABLE b ADD COLUMN title TEXT;")
    with pytest.raises(VerificationFailed, match="The view both cannot be read"):
        apply_batch(plan(shop, scratch), Ledger(scratch))


def test_a_trigger_that_goes_with_its_view_is_missed(
    shop: Workshop, scratch: sqlite3.Connection
) -> None:
    for sql in (
        "CREATE TABLE a (id)",
        "INSERT INTO a VALUES (1)",
        "CREATE VIEW v AS SELECT id FROM a",
        "CREATE TRIGGER t INSTEAD OF INSERT ON v BEGIN INSERT INTO a VALUES (new.id); END",
    ):
        scratch.execute(sql)
    shop.add("0000_view", "DROP VIEW v; CREATE VIEW v AS SELECT id AS id FROM a;")
    with pytest.raises(VerificationFailed, match="The trigger t of v"):
        apply_batch(plan(shop, scratch), Ledger(scratch))


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
    assert "from 1 row to 0" in found.hazard.message


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
