"""The short commands: each under the lock, each recorded in the history."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_mcp_gateway.errors import DatabasePathProblem, MigrationFailed, UsageProblem
from local_mcp_gateway.guard import (
    GuardContext,
    back_up_now,
    find_to_restore,
    get_status,
    guarded,
    identify_guarded,
    repairing,
    reset_guarded,
    restore_guarded,
    seed_guarded,
)
from local_mcp_gateway.migrate import read_events
from tests.harness import Place


@pytest.fixture
def notes(place: Place) -> Place:
    place.folder.add("notes", "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT);")
    with guarded(place.database, place.folder.path):
        pass
    place.write("INSERT INTO notes VALUES (1, 'a')")
    return place


def context(place: Place) -> GuardContext:
    return GuardContext(place.database, place.folder.path)


def events(place: Place) -> list[str]:
    return [event.event for event in read_events(place.database)]


def test_a_restore_brings_the_rows_back_and_keeps_what_it_replaced(notes: Place) -> None:
    backup = back_up_now(context(notes))
    notes.write("DELETE FROM notes")
    done = restore_guarded(context(notes), backup)
    assert notes.query("SELECT body FROM notes") == [("a",)]
    assert events(notes)[-1] == "restored"
    assert done.aside is not None
    replaced = find_to_restore(notes.database, done.aside.name, None)
    restore_guarded(context(notes), replaced)
    assert notes.query("SELECT body FROM notes") == []


def test_a_database_is_the_same_one_after_a_restore_and_a_reset(notes: Place) -> None:
    without = back_up_now(context(notes))
    identity = identify_guarded(context(notes))
    restore_guarded(context(notes), without)
    assert identify_guarded(context(notes)) == identity
    reset_guarded(context(notes))
    assert identify_guarded(context(notes)) == identity
    assert events(notes).count("identified") == 1


def test_a_reset_has_the_migrations_and_the_seeds_and_no_other_row(
    notes: Place, tmp_path: Path
) -> None:
    seed = tmp_path / "seed.sql"
    seed.write_text("INSERT INTO notes VALUES (9, 'seeded');")
    done = reset_guarded(context(notes), seeds=[seed])
    assert notes.query("SELECT id FROM notes") == [(9,)]
    assert events(notes)[-2:] == ["reset", "seeded"]
    assert done.backup is not None


def test_a_reset_whose_migrations_fail_leaves_the_old_database(notes: Place) -> None:
    notes.folder.add("bad", "CREATE TABLE notes (x);")
    before = notes.content()
    with pytest.raises(MigrationFailed):
        reset_guarded(context(notes))
    assert notes.content() == before


def test_seeds_need_a_database(place: Place, tmp_path: Path) -> None:
    seed = tmp_path / "seed.sql"
    seed.write_text("SELECT 1;")
    with pytest.raises(DatabasePathProblem):
        seed_guarded(context(place), [seed])
    with pytest.raises(UsageProblem, match="no seed file"):
        seed_guarded(context(place), [tmp_path / "missing.sql"])


def test_a_repair_that_records_nothing_changes_nothing(notes: Place) -> None:
    before = notes.content()
    with repairing(context(notes)) as repair:
        assert repair.trust_files(lambda _: None) == ()
    assert notes.content() == before


def test_an_emptied_database_is_refused_by_the_status_as_by_a_start(notes: Place) -> None:
    back_up_now(context(notes))
    notes.database.write_bytes(b"")
    found = get_status(notes.database, notes.folder.path)
    assert (found.state, found.problems[0].code) == ("refused", "database_emptied")
