"""A guarded start with migrations that copy a table badly, or break what depends on it."""

from __future__ import annotations

from typing import Any

import pytest

from local_mcp_gateway.errors import MigrationFailed, VerificationFailed
from local_mcp_gateway.guard import GuardPolicy
from tests.guard.test_guard import Heard, start
from tests.harness import Place

REBUILD = (
    "CREATE TABLE __new (id INTEGER PRIMARY KEY, v TEXT DEFAULT 'q')",
    "INSERT INTO __new SELECT id, v FROM notes",
    "DROP TABLE notes",
    "ALTER TABLE __new RENAME TO notes",
)
AUDIT = "CREATE TRIGGER audit AFTER INSERT ON notes BEGIN INSERT INTO log VALUES (new.v); END"
EVERY_WAY = pytest.mark.parametrize("rehearse", ["always", "auto", "never"])


@pytest.fixture
def notes(place: Place) -> Place:
    place.folder.add(
        "notes", "CREATE TABLE notes (id INTEGER PRIMARY KEY, v TEXT)", "CREATE TABLE log (x)"
    )
    start(place)
    place.write("INSERT INTO notes VALUES (1, 'a'), (5, 'b'), (7, NULL)")
    return place


def refused(place: Place, message: str, policy: GuardPolicy) -> None:
    before = place.content()
    with pytest.raises(VerificationFailed, match=message):
        start(place, policy=policy)
    assert place.content() == before


@EVERY_WAY
def test_a_forgotten_copy_is_refused_with_and_without_a_rehearsal(
    notes: Place, rehearse: Any
) -> None:
    notes.folder.add("rebuild", *REBUILD[:1], *REBUILD[2:])
    refused(notes, "Table notes had 3 rows and has 0", GuardPolicy(rehearse=rehearse))


@EVERY_WAY
def test_a_lost_trigger_is_refused_with_and_without_a_rehearsal(
    notes: Place, rehearse: Any
) -> None:
    tag = notes.folder.add("audit", AUDIT)
    start(notes)
    notes.folder.add("rebuild", *REBUILD)
    refused(notes, "The trigger audit of notes would go", GuardPolicy(rehearse=rehearse))
    notes.folder.add("mend", AUDIT)
    assert start(notes, policy=GuardPolicy(rehearse=rehearse)).state == "migrated"
    assert tag == "0001_audit"


@EVERY_WAY
def test_a_broken_view_is_refused_with_and_without_a_rehearsal(notes: Place, rehearse: Any) -> None:
    notes.folder.add("view", "CREATE VIEW texts AS SELECT v FROM notes")
    start(notes)
    notes.folder.add("drop", "DROP TABLE notes")
    refused(notes, "The view texts cannot be read", GuardPolicy(rehearse=rehearse))


@EVERY_WAY
def test_statements_in_a_comment_that_never_ends_are_not_passed_over(
    notes: Place, rehearse: Any
) -> None:
    notes.folder.add("two", "CREATE TABLE two (x); /* and\nCREATE TABLE three (x);")
    message = "line 1: a comment begins here and never ends"
    before = notes.content()
    with pytest.raises(MigrationFailed, match=message):
        start(notes, policy=GuardPolicy(rehearse=rehearse))
    assert notes.content() == before


def test_in_a_new_database_a_comment_that_never_ends_is_only_told(place: Place) -> None:
    place.folder.add("two", "CREATE TABLE two (x); /* and\nCREATE TABLE three (x);")
    heard = Heard()
    start(place, emit=heard)
    (told,) = [fields for event, fields in heard.events if event == "guard.hazard_found"]
    assert told["kind"] == "unclosed_comment"


def test_values_that_a_rebuild_changes_are_told(notes: Place) -> None:
    copy = "INSERT INTO __new SELECT id, coalesce(v, 'none') FROM notes"
    notes.folder.add("rebuild", REBUILD[0], copy, *REBUILD[2:])
    heard = Heard()
    start(notes, emit=heard)
    told = [fields for event, fields in heard.events if event == "guard.hazard_found"]
    assert ("changes_values", "notes.v") in [(f["kind"], f["object"]) for f in told]


def test_a_table_with_too_many_values_is_counted_and_that_is_said(notes: Place) -> None:
    notes.folder.add("rebuild", *REBUILD)
    heard = Heard()
    start(notes, emit=heard, policy=GuardPolicy(compare_limit_values=5))
    assert heard.of("guard.values_not_compared") == {
        "table": "notes",
        "rows": 3,
        "reason": "it has more values than `[guard] compare_limit_values`",
    }
    notes.folder.add("again", *REBUILD[:1], REBUILD[1] + " LIMIT 2", *REBUILD[2:])
    refused(notes, "had 3 rows and has 2", GuardPolicy(compare_limit_values=5))


def test_a_new_database_is_told_what_cannot_run_in_it(place: Place) -> None:
    tag = place.folder.add(
        "old",
        "CREATE TABLE p (id INTEGER PRIMARY KEY, k TEXT)",
        "CREATE TABLE c (k TEXT REFERENCES p(k))",
        "CREATE VIEW v AS SELECT x FROM nowhere",
    )
    heard = Heard()
    assert start(place, emit=heard).state == "created"
    told = [fields for event, fields in heard.events if event == "guard.hazard_found"]
    assert [(f["tag"], f["kind"], f["object"]) for f in told] == [
        (tag, "cannot_run", "v"),
        (tag, "cannot_run", "c"),
    ]


def test_a_way_back_that_forgets_rows_is_refused(notes: Place) -> None:
    tag = notes.folder.add("rebuild", *REBUILD)
    forgetful = (
        "CREATE TABLE __old (id INTEGER PRIMARY KEY, v TEXT);"
        " INSERT INTO __old SELECT id, v FROM notes WHERE id > 1;"
        " DROP TABLE notes; ALTER TABLE __old RENAME TO notes;"
    )
    notes.folder.path.joinpath(f"{tag}.down.sql").write_text(forgetful)
    start(notes)
    done = notes.run("db", "down", "--yes")
    assert done.code == 5
    assert "Table notes had 3 rows and has 2 after its rebuild" in done.stderr
    notes.folder.path.joinpath(f"{tag}.down.sql").write_text(forgetful.replace("WHERE id > 1", ""))
    assert notes.run("db", "down", "--yes").code == 0
    assert notes.query("SELECT count(*) FROM notes") == [(3,)]


def test_a_vacuum_that_would_move_rows_from_under_their_index_is_refused(place: Place) -> None:
    place.folder.add(
        "words",
        "CREATE TABLE places (name TEXT)",
        "CREATE VIRTUAL TABLE words USING fts5 (name, content=places)",
    )
    start(place)
    place.write("INSERT INTO places VALUES ('Aachen'), ('Bonn'), ('Celle')")
    place.write("DELETE FROM places WHERE name = 'Aachen'")
    place.write("INSERT INTO words (words) VALUES ('rebuild')")
    tag = place.folder.add("smaller", "-- guard: no-transaction\nVACUUM")
    refused(place, "VACUUM in 0001_smaller would give the rows of places new rowids", GuardPolicy())
    line = "-- guard: accept rekeys_rows places\n"
    place.folder.write(tag, f"-- guard: no-transaction\n{line}VACUUM")
    assert start(place).state == "migrated"
