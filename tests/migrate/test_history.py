"""The history of a database: what it remembers, and how it tells that somebody else changed the schema."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

from local_mcp_gateway.database import open_scratch
from local_mcp_gateway.migrate import Ledger
from tests.harness import Place
from tests.migrate.test_ledger import HISTORY


def with_history(connection: sqlite3.Connection, *events: str) -> Ledger:
    ledger = Ledger(connection, program_version="1")
    ledger.ensure()
    for event in events:
        ledger.note(event)
    return ledger


def test_a_change_by_another_program_is_seen_by_the_schemas_own_counter(
    scratch: sqlite3.Connection,
) -> None:
    ledger = with_history(scratch, "seeded")
    made = ledger.fingerprint()
    ledger.record_fingerprint(made)
    assert ledger.recorded_fingerprint() == made
    scratch.execute("CREATE TABLE other (x)")
    assert ledger.recorded_fingerprint() is None
    assert ledger.last_fingerprint() == made
    assert ledger.fingerprint() != made


def test_a_note_about_the_whole_database_keeps_the_fingerprint(scratch: sqlite3.Connection) -> None:
    ledger = with_history(scratch, "seeded")
    ledger.record_fingerprint("of the schema")
    ledger.note("restored", backup="before")
    assert ledger.last_fingerprint() == "of the schema"
    assert [(one.event, one.backup) for one in ledger.events()] == [
        ("seeded", None),
        ("restored", "before"),
    ]


def test_the_identity_is_the_last_that_was_given(scratch: sqlite3.Connection) -> None:
    assert Ledger(scratch).identity() is None
    ledger = with_history(scratch)
    ledger.identify("a")
    ledger.identify("b")
    assert ledger.identity() == "b"


def test_a_rewound_database_goes_on_with_the_history_of_the_one_that_it_replaces(
    scratch: sqlite3.Connection,
) -> None:
    with closing(open_scratch()) as other:
        old = with_history(other, "seeded", "restored")
        new = with_history(scratch, "reset", "reindexed")
        new.continue_from(old, since=1, backup="before")
        told = [one.event for one in new.events()]
    assert told == ["seeded", "restored", "rewound", "reindexed"]


def test_the_history_says_what_a_migration_touched_and_what_its_rehearsal_found(
    kept: Place,
) -> None:
    kept.write("INSERT INTO notes (id, text) VALUES (2, 'b'), (3, 'c'), (4, 'd')")
    one = "WITH old(i) AS (SELECT 4) DELETE FROM notes WHERE id IN (SELECT i FROM old)"
    kept.folder.add("fewer", one, "UPDATE notes SET pinned = 1", "SELECT 1")
    kept.migrate()
    first, _, last = json.loads(kept.run("db", "history", "--json").stdout)
    assert (first["rows_touched"], first["rehearsed_ms"], first["hazards"]) == (0, None, None)
    assert last["rows_touched"] == 1 + 3
    assert last["rehearsed_ms"] > 0
    assert last["hazards"] == ["deletes_data"]


def test_a_table_of_an_earlier_version_is_read_and_gets_what_it_lacks(
    scratch: sqlite3.Connection,
) -> None:
    scratch.execute(HISTORY.format(""))
    scratch.execute("INSERT INTO __guard_history (event, applied_at) VALUES ('seeded', '2026')")
    (earlier,) = Ledger(scratch).events()
    assert (earlier.event, earlier.rows_touched, earlier.hazards) == ("seeded", None, None)
    assert [one.event for one in with_history(scratch, "restored").events()] == [
        "seeded",
        "restored",
    ]
