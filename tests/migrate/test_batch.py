"""One batch: counted, run, verified and recorded in the transaction that the caller has begun."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from local_mcp_gateway.database import Run
from local_mcp_gateway.errors import DoubleQuotedString, VerificationFailed
from local_mcp_gateway.migrate import Ledger, Plan, apply_batch
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
        "CREATE TABLE n (x, y); INSERT INTO n (x) SELECT x FROM a; DROP TABLE a;"
        " ALTER TABLE n RENAME TO a;",
    )
    scratch.execute("BEGIN")
    with pytest.raises(VerificationFailed, match=r"a\.y would be NULL"):
        apply_batch(plan(shop, scratch), Ledger(scratch))
    scratch.execute("ROLLBACK")
    assert apply_batch(plan(shop, scratch), Ledger(scratch), rehearsed=True).changes == ()


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
