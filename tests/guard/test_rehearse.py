"""A rehearsal runs on a copy: of the backup for a start, of any database for `db rehearse`."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest

from local_mcp_gateway.errors import HazardRefused
from local_mcp_gateway.guard import GuardContext, GuardPolicy, dry_run_on_copy
from tests.guard.test_guard import start
from tests.harness import Place, clean_environment


@pytest.fixture
def notes(place: Place) -> Place:
    place.folder.add("notes", "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT);")
    start(place)
    place.write("INSERT INTO notes VALUES (1, 'a')")
    return place


def context(place: Place) -> GuardContext:
    return GuardContext(place.database, place.folder.path)


def test_a_dry_run_counts_rows_after_each_migration_and_leaves_the_file_alone(notes: Place) -> None:
    notes.folder.add("more", "INSERT INTO notes VALUES (2, 'b');")
    notes.folder.add("clean", "DELETE FROM notes;")
    before = notes.content()
    found = dry_run_on_copy(context(notes), notes.database)
    assert [(t.table, t.before, t.after) for t in found.tables] == [("notes", 1, 0)]
    assert {tag: [t.after for t in rows] for tag, rows in found.changed.items()} == {
        "0001_more": [2],
        "0002_clean": [0],
    }
    assert notes.content() == before


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
def test_the_copy_is_never_flushed(notes: Place, needs_strace: None, journal_mode: str) -> None:
    """It may be lost, and a flush of it takes as long as one of the database."""
    notes.write(f"PRAGMA journal_mode={journal_mode}")
    notes.folder.add("more", "ALTER TABLE notes ADD COLUMN more TEXT;")
    trace = notes.root / "trace"
    watched = ("-f", "-y", "-qq", "-e", "trace=fsync,fdatasync,pwrite64,copy_file_range,sendfile")
    command = [
        "strace",
        *watched,
        "-o",
        str(trace),
        *notes.command,
        *notes.options,
        "db",
        "migrate",
    ]
    subprocess.run(command, check=True, env=clean_environment(notes.home), capture_output=True)
    calls = [line for line in trace.read_text().splitlines() if "-rehearsal-" in line]
    assert calls
    assert [call for call in calls if "sync(" in call] == []


def test_nothing_pending_is_no_rehearsal(notes: Place) -> None:
    assert dry_run_on_copy(context(notes), notes.database).rehearsal is None


def test_rows_are_counted_under_a_collation_of_the_application(notes: Place) -> None:
    policy = GuardPolicy(collations={"german": lambda a, b: (a > b) - (a < b)})
    notes.folder.add("key", "CREATE TABLE words (word COLLATE german PRIMARY KEY) WITHOUT ROWID;")
    start(notes, policy=policy)
    notes.folder.add("word", "INSERT INTO words VALUES ('a');")
    found = dry_run_on_copy(replace(context(notes), policy=policy), notes.database)
    assert [(t.table, t.before, t.after) for t in found.tables] == [
        ("notes", 1, 1),
        ("words", 0, 1),
    ]


def test_every_hazard_is_reported_before_one_is_refused(notes: Place) -> None:
    notes.folder.add("clean", "DELETE FROM notes;")
    notes.folder.add("drop", "ALTER TABLE notes DROP COLUMN body;")
    told = []

    def emit(event: str, /, **fields: object) -> None:
        if event == "guard.hazard_found":
            told.append(fields["tag"])

    policy = GuardPolicy(destructive="refuse")
    with pytest.raises(HazardRefused, match="is not accepted"):
        start(notes, policy=policy, emit=emit)
    assert set(told) == {"0001_clean", "0002_drop"}


def test_a_kind_can_be_ignored(notes: Place) -> None:
    notes.folder.add("clean", "DELETE FROM notes;")
    policy = replace(GuardPolicy(destructive="refuse"), hazards={"deletes_data": "ignore"})
    assert [step.tag for step in start(notes, policy=policy).applied] == ["0001_clean"]
