"""What goes by the rowids of a table, and what a VACUUM would renumber."""

from __future__ import annotations

import sqlite3

import pytest

from local_mcp_gateway.migrate.rowids import looked_after, renumbered_by_vacuum, rowid_users
from local_mcp_gateway.migrate.verify import read_objects


@pytest.fixture
def notes(scratch: sqlite3.Connection) -> sqlite3.Connection:
    scratch.execute("CREATE TABLE notes (body)")
    scratch.execute("INSERT INTO notes (rowid, body) VALUES (2, 'a'), (7, 'b')")
    return scratch


def users(connection: sqlite3.Connection) -> tuple[str, ...]:
    return rowid_users(connection, read_objects(connection), "notes", "notes")


def test_a_full_text_index_over_a_table_goes_by_its_rowids(notes: sqlite3.Connection) -> None:
    notes.execute("CREATE VIRTUAL TABLE found USING fts5(body, content='notes')")
    assert users(notes) == ("found",)


def test_a_trigger_is_one_if_it_says_so(notes: sqlite3.Connection) -> None:
    notes.execute("CREATE TABLE log (n)")
    notes.execute(
        "CREATE TRIGGER plain AFTER DELETE ON notes BEGIN INSERT INTO log VALUES (1); END"
    )
    assert users(notes) == ()
    notes.execute(
        "CREATE TRIGGER exact AFTER DELETE ON notes BEGIN INSERT INTO log VALUES (old.rowid); END"
    )
    assert users(notes) == ("exact",)


def test_a_vacuum_renumbers_rows_with_gaps_that_nothing_fixes(notes: sqlite3.Connection) -> None:
    notes.execute("CREATE VIEW v AS SELECT rowid FROM notes")
    assert list(renumbered_by_vacuum(notes)) == [("notes", ("v",))]
    notes.execute("CREATE INDEX i ON notes (body)")
    assert list(renumbered_by_vacuum(notes)) == []


def test_what_the_file_fills_again_is_looked_after() -> None:
    statements = ["INSERT INTO found (found) VALUES ('rebuild')", "CREATE VIEW other AS SELECT 1"]
    assert list(looked_after(["found", "other"], statements)) == ["found"]
