"""The history of a database: what it remembers, and how it tells that somebody else changed the schema."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from local_mcp_gateway.database import open_scratch
from local_mcp_gateway.migrate import Ledger


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
