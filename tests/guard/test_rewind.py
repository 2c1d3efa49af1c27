"""A dev start on a folder that changed while the gateway was off; a production start refuses it."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest

from local_mcp_gateway.backup import list_backups
from local_mcp_gateway.backup.files import list_asides
from local_mcp_gateway.database.connections import open_reader
from local_mcp_gateway.errors import DatabaseBusy, HazardRefused, HistoryRefused, MigrationFailed
from local_mcp_gateway.guard import (
    GuardContext,
    GuardPolicy,
    GuardReport,
    back_up_now,
    find_divergence,
    guarded,
)
from local_mcp_gateway.guard.rewind import restore_points, rewind_database
from local_mcp_gateway.migrate.ledger import Ledger
from local_mcp_gateway.service.options import planner
from tests.harness import Place

USERS = "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)"
NOTES = "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT);"


class Told:
    """An Emit that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, event: str, /, **fields: object) -> None:
        self.events.append((event, fields))

    def rewound(self) -> dict[str, Any]:
        (found,) = [fields for event, fields in self.events if event == "migration.rewound"]
        return found


def start(place: Place, told: Told | None = None, *, dev: bool = True) -> GuardReport:
    policy = GuardPolicy(journal_new_files=dev)
    with guarded(
        place.database,
        place.folder.path,
        policy=policy,
        planner=planner(dev=dev),
        emit=told or Told(),
    ) as report:
        return report


@pytest.fixture
def worked(place: Place) -> Place:
    """Return a place where dev mode has applied a first migration, and then `0001_notes`."""
    place.folder.add("users", USERS)
    start(place)
    place.folder.write("0001_notes", NOTES)
    start(place)
    return place


def test_an_edited_file_is_rewound_and_replayed_and_what_is_lost_is_told(worked: Place) -> None:
    worked.write("INSERT INTO notes (body) VALUES ('lost'), (NULL)")
    worked.write("INSERT INTO users (name) VALUES ('kept')")
    worked.folder.write("0001_notes", NOTES.replace("body", "text"))
    told = Told()
    report = start(worked, told)
    assert [step.tag for step in report.applied] == ["0001_notes"]
    assert worked.query("SELECT id, text FROM notes") == [(1, None), (2, None)]
    assert worked.query("SELECT name FROM users") == [("kept",)]
    found = told.rewound()
    assert found["migrations"] == ["0001_notes"]
    assert found["by"].startswith("backup ")
    assert found["message"] == "Lost: notes: 1 value of body gone."


def test_rows_are_kept_where_a_column_is_added(worked: Place) -> None:
    worked.write("INSERT INTO notes (body) VALUES ('kept')")
    worked.folder.write("0001_notes", NOTES.replace("body", "pinned INT DEFAULT 7, body"))
    told = Told()
    start(worked, told)
    assert worked.query("SELECT pinned, body FROM notes") == [(7, "kept")]
    assert told.rewound()["message"] == "No row was lost."


def test_rows_that_a_new_rule_forbids_are_told_one_by_one(worked: Place) -> None:
    worked.write("INSERT INTO notes (body) VALUES ('fits'), (NULL), ('fits')")
    worked.folder.write("0001_notes", NOTES.replace("body TEXT", "body TEXT NOT NULL UNIQUE"))
    told = Told()
    start(worked, told)
    assert worked.query("SELECT id, body FROM notes") == [(1, "fits")]
    assert told.rewound()["message"] == "Lost: notes: 2 rows gone."


def test_the_replaced_database_is_kept_with_every_row(worked: Place) -> None:
    worked.write("INSERT INTO notes (body) VALUES ('kept aside')")
    worked.folder.write("0001_notes", NOTES.replace("body", "text"))
    told = Told()
    start(worked, told)
    (aside,) = list_asides(worked.database)
    assert told.rewound()["replaced"] == str(aside)
    with closing(open_reader(aside)) as reader:
        assert reader.execute("SELECT body FROM notes").fetchall() == [("kept aside",)]


def test_the_replaced_database_comes_back_by_its_name_with_what_was_lost(worked: Place) -> None:
    worked.write("INSERT INTO notes (body) VALUES ('precious')")
    worked.folder.write("0001_notes", NOTES.replace("body", "text"))
    told = Told()
    start(worked, told)
    (aside,) = list_asides(worked.database)
    worked.folder.write("0001_notes", NOTES)
    done = worked.run("db", "restore", aside.name, "--yes")
    assert done.code == 0, done.stderr
    assert worked.query("SELECT body FROM notes") == [("precious",)]
    assert worked.run("db", "status", "--json").json()["state"] == "current"


def test_a_rewind_that_loses_something_makes_a_backup_first_and_names_it(worked: Place) -> None:
    """Replaced databases are kept for a few rewinds only, and there may be one a minute."""
    worked.write("INSERT INTO notes (body) VALUES ('precious')")
    told = Told()
    worked.folder.write("0001_notes", NOTES.replace("body", "text"))
    start(worked, told)
    for number in range(5):
        worked.folder.write("0001_notes", NOTES.replace("body", f"n{number} INT, text"))
        start(worked)
    (backup,) = (b for b in list_backups(worked.database) if b.before == "rewind-0001_notes")
    assert f"`db restore {backup.name}`" in told.rewound()["hint"]
    with closing(open_reader(backup.path)) as reader:
        assert reader.execute("SELECT body FROM notes").fetchall() == [("precious",)]


def test_a_way_back_keeps_the_rows_of_every_table(place: Place) -> None:
    place.folder.add("users", USERS)
    start(place)
    place.folder.add("notes", NOTES, down="DROP TABLE notes;")
    start(place)
    place.write("INSERT INTO users (name) VALUES ('kept')")
    place.write("INSERT INTO notes (body) VALUES ('kept too')")
    place.folder.write("0001_notes", NOTES.replace("body", "more TEXT, body"))
    told = Told()
    start(place, told)
    assert told.rewound()["by"] == "down"
    assert told.rewound()["message"] == "No row was lost."
    assert place.query("SELECT name FROM users") == [("kept",)]
    assert place.query("SELECT body, more FROM notes") == [("kept too", None)]
    with closing(open_reader(place.database)) as reader:
        events = [row.event for row in Ledger(reader).events()]
    assert events == ["applied_in_dev", "applied_in_dev", "reverted", "applied_in_dev"]


def test_rows_that_the_migration_itself_changed_are_no_loss(place: Place) -> None:
    place.folder.add("users", USERS, "INSERT INTO users (name) VALUES ('a')")
    start(place)
    sql = "UPDATE users SET name = upper(name);"
    place.folder.add("upper", sql)
    start(place)
    place.folder.write("0001_upper", f"{sql}\n-- edited\n")
    told = Told()
    start(place, told)
    assert told.rewound()["message"] == "No row was lost."
    assert place.query("SELECT name FROM users") == [("A",)]


def test_a_broken_edit_takes_nothing_back(worked: Place) -> None:
    worked.write("INSERT INTO notes (body) VALUES ('kept')")
    before, journal = worked.content(), worked.folder.journal()
    worked.folder.write("0001_notes", "CREAT TABLE notes (id);")
    with pytest.raises(MigrationFailed, match="0001_notes"):
        start(worked)
    assert (worked.content(), worked.folder.journal()) == (before, journal)


def test_an_edit_that_fails_only_on_the_rows_that_are_there_takes_nothing_back(
    place: Place,
) -> None:
    place.folder.add("users", USERS)
    start(place)
    place.write("INSERT INTO users (name) VALUES ('twin'), ('twin')")
    place.folder.add("by_name", "CREATE INDEX by_name ON users (name);")
    start(place)
    before = place.content()
    place.folder.write("0001_by_name", "CREATE UNIQUE INDEX by_name ON users (name);")
    with pytest.raises(MigrationFailed, match="UNIQUE"):
        start(place)
    assert place.content() == before
    assert list_asides(place.database) == ()


def test_an_edit_whose_loss_is_not_accepted_takes_nothing_back(worked: Place) -> None:
    worked.write("INSERT INTO users (name) VALUES ('kept')")
    before = worked.content()
    worked.folder.write("0001_notes", f"{NOTES}\nDROP TABLE users;")
    policy = GuardPolicy(journal_new_files=True, destructive="refuse")
    with (
        pytest.raises(HazardRefused, match="0001_notes is not accepted"),
        guarded(worked.database, worked.folder.path, policy=policy, planner=planner(dev=True)),
    ):
        pass
    assert worked.content() == before


def test_a_damaged_backup_is_passed_over_for_an_older_one(worked: Place) -> None:
    worked.folder.add("more", "CREATE TABLE more (id INTEGER PRIMARY KEY);")
    start(worked)
    newest, oldest = list_backups(worked.database)
    newest.path.write_bytes(b"\xff" * newest.bytes)
    worked.folder.write("0002_more", "CREATE TABLE more (id INTEGER PRIMARY KEY, x);")
    told = Told()
    start(worked, told)
    assert told.rewound()["by"] == f"backup {oldest.name}"
    assert worked.query("SELECT x FROM more") == []


def test_what_another_program_writes_meanwhile_is_never_lost(worked: Place) -> None:
    """It waits for the lock of the rewind, and may have it before the old database is replaced."""
    worked.write("INSERT INTO users (name) VALUES ('hazard')")
    worked.folder.write("0001_notes", f"{NOTES}\nDELETE FROM users;")
    refused = []

    class Meanwhile(Told):
        """Somebody who writes as soon as anything is told: the lock is held by then."""

        program: Popen[bytes] | None = None

        def __call__(self, event: str, /, **fields: object) -> None:
            if event == "guard.hazard_found" and not self.program:
                insert = "INSERT INTO users (name) VALUES ('committed')"
                code = (
                    "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=60);"
                    " print(flush=True); c.execute(sys.argv[2]); c.commit(); c.close()"
                )
                command = [sys.executable, "-c", code, str(worked.database), insert]
                self.program = Popen(command, stdout=PIPE)
                assert self.program.stdout
                self.program.stdout.readline()
            super().__call__(event, **fields)

    told = Meanwhile()
    try:
        start(worked, told)
    except DatabaseBusy as busy:
        refused.append(busy)
    assert told.program
    told.program.communicate()
    assert told.program.returncode == 0
    assert worked.query("SELECT count(*) FROM users WHERE name = 'committed'") == [(1,)]
    assert refused or worked.query("SELECT count(*) FROM users") == [(1,)]


def test_a_production_start_refuses_what_a_dev_start_rewinds(worked: Place) -> None:
    before = worked.content()
    worked.folder.write("0001_notes", NOTES.replace("body", "text"))
    with pytest.raises(HistoryRefused, match="edited after it was applied"):
        start(worked, dev=False)
    assert worked.content() == before


def test_another_branch_is_taken_up_at_a_start(worked: Place) -> None:
    entries = worked.folder.journal()[:1]
    (worked.folder.path / "0001_notes.sql").unlink()
    worked.folder.write("0001_labels", "CREATE TABLE labels (id INTEGER PRIMARY KEY);")
    worked.folder.write_journal(entries)
    told = Told()
    assert [step.tag for step in start(worked, told).applied] == ["0001_labels"]
    assert told.rewound()["migrations"] == ["0001_notes"]


def test_a_deleted_file_is_taken_back_and_leaves_the_journal(worked: Place) -> None:
    (worked.folder.path / "0001_notes.sql").unlink()
    assert start(worked).state == "current"
    assert [entry["tag"] for entry in worked.folder.journal()] == ["0000_users"]
    assert worked.query("SELECT name FROM sqlite_schema WHERE name = 'notes'") == []


def test_an_older_checkout_does_not_take_back_what_production_applied(place: Place) -> None:
    place.folder.add("users", USERS)
    start(place, dev=False)
    place.folder.add("notes", NOTES)
    start(place, dev=False)
    before = place.content()
    (place.folder.path / "0001_notes.sql").unlink()
    place.folder.write_journal(place.folder.journal()[:1])
    with pytest.raises(HistoryRefused, match="newer than everything"):
        start(place)
    assert place.content() == before


def test_an_edited_file_is_rewound_whoever_applied_it(place: Place) -> None:
    place.folder.add("users", USERS)
    start(place, dev=False)
    place.folder.add("notes", NOTES)
    start(place, dev=False)
    place.folder.write("0001_notes", NOTES.replace("body", "text"))
    start(place)
    assert place.query("SELECT text FROM notes") == []


def test_what_created_the_database_is_replayed_on_an_empty_one_and_keeps_the_rows(
    place: Place,
) -> None:
    seed = "INSERT INTO users (name) VALUES ('seeded')"
    place.folder.add("users", USERS, seed)
    place.folder.add("notes", NOTES)
    start(place)
    place.write("INSERT INTO users (name) VALUES ('mine')")
    place.write("INSERT INTO notes (body) VALUES ('mine too')")
    edited = USERS.replace("name TEXT", "age INTEGER DEFAULT 1, name TEXT")
    place.folder.write("0000_users", f"{edited};\n{seed.replace('seeded', 'seeded anew')};")
    told = Told()
    report = start(place, told)
    assert [step.tag for step in report.applied] == ["0000_users", "0001_notes"]
    assert told.rewound()["migrations"] == ["0000_users", "0001_notes"]
    assert told.rewound()["by"] == "replay on an empty database"
    assert place.query("SELECT name, age FROM users") == [("seeded anew", 1), ("mine", 1)]
    assert place.query("SELECT body FROM notes") == [("mine too",)]
    assert place.query("PRAGMA journal_mode") == [("wal",)]
    status = place.run("db", "status", "--json").json()
    assert (status["state"], status["drift"], status["problems"]) == ("current", [], [])
    assert start(place, dev=False).state == "current"


def test_a_deleted_newest_file_of_those_that_created_the_database_is_taken_back(
    place: Place,
) -> None:
    place.folder.add("users", USERS)
    place.folder.add("notes", NOTES)
    start(place)
    place.write("INSERT INTO users (name) VALUES ('kept')")
    place.write("INSERT INTO notes (body) VALUES ('lost')")
    (place.folder.path / "0001_notes.sql").unlink()
    told = Told()
    start(place, told)
    assert told.rewound()["message"] == "Lost: notes: 1 row gone."
    assert place.query("SELECT name FROM users") == [("kept",)]
    assert [entry["tag"] for entry in place.folder.journal()] == ["0000_users"]


def test_a_broken_edit_of_what_created_the_database_takes_nothing_back(place: Place) -> None:
    place.folder.add("users", USERS)
    start(place)
    place.write("INSERT INTO users (name) VALUES ('kept')")
    before, around = place.content(), sorted(place.database.parent.iterdir())
    place.folder.write("0000_users", USERS.replace("CREATE", "CREAT"))
    with pytest.raises(MigrationFailed, match="0000_users"):
        start(place)
    assert place.content() == before
    assert sorted(place.database.parent.iterdir()) == around


def test_an_edited_data_migration_runs_on_the_rows_from_before_it(place: Place) -> None:
    place.folder.add("users", USERS)
    start(place)
    place.write("INSERT INTO users (name) VALUES ('a'), ('b')")
    place.folder.add("upper", "UPDATE users SET name = name || '!';")
    start(place)
    place.write("UPDATE users SET name = 'mine' WHERE id = 2")
    place.write("INSERT INTO users (name) VALUES ('since')")
    place.folder.write("0001_upper", "UPDATE users SET name = name || '?';")
    start(place)
    assert place.query("SELECT name FROM users") == [("a?",), ("mine",), ("since",)]


def test_a_backup_that_holds_the_old_text_is_not_the_one_to_go_back_to(worked: Place) -> None:
    """0002's backup has 0001 as it was before the edit: only its tag is right."""
    worked.folder.add("more", "CREATE TABLE more (id INTEGER PRIMARY KEY);")
    start(worked)
    worked.folder.write("0001_notes", NOTES.replace("body", "text"))
    start(worked)
    assert list_backups(worked.database)[0].before == "0002_more"
    worked.folder.write("0002_more", "CREATE TABLE more (id INTEGER PRIMARY KEY, x);")
    told = Told()
    start(worked, told)
    assert told.rewound()["by"].endswith("-before-0001_notes")
    assert worked.query("SELECT text, x FROM notes, more") == []


def test_a_file_whose_journal_entry_is_gone_gets_it_back(worked: Place) -> None:
    """As after `git stash`, which leaves a new file and takes the journal back."""
    entries = worked.folder.journal()
    worked.folder.write_journal(entries[:1])
    assert start(worked).state == "current"
    assert worked.folder.journal() == entries
    assert start(worked, dev=False).state == "current"


def test_the_rewind_is_in_the_history(worked: Place) -> None:
    worked.folder.write("0001_notes", NOTES.replace("body", "text"))
    start(worked)
    with closing(open_reader(worked.database)) as reader:
        events = [(row.event, row.tag) for row in Ledger(reader).events()]
    assert events == [
        ("applied_in_dev", "0000_users"),
        ("applied_in_dev", "0001_notes"),
        ("rewound", None),
        ("applied_in_dev", "0001_notes"),
    ]


IN_DEV = GuardPolicy(journal_new_files=True)


@pytest.fixture
def edited(place: Place) -> GuardContext:
    """A database whose second migration was edited after dev mode had applied it."""
    place.folder.add("a", "CREATE TABLE a (x);", down="DROP TABLE a;")
    with guarded(place.database, place.folder.path, policy=IN_DEV):
        pass
    place.folder.write("0001_b", "CREATE TABLE b (x);")
    with guarded(place.database, place.folder.path, policy=IN_DEV):
        pass
    place.folder.write("0001_b", "CREATE TABLE b (x, y);")
    return GuardContext(place.database, place.folder.path, IN_DEV)


def test_points_are_tried_from_the_least_loss_to_the_most(edited: GuardContext) -> None:
    backup = back_up_now(edited)
    divergence = find_divergence(edited, at_start=False)
    assert divergence is not None
    found = [point.by for point in restore_points(edited, divergence)]
    assert found[0] == "down"
    assert found[-1] == "replay on an empty database"
    # A backup that holds the migration to be reverted is none.
    assert f"backup {backup.name}" not in found


def test_a_point_without_a_way_back_is_not_available(edited: GuardContext, tmp_path: Path) -> None:
    divergence = find_divergence(edited, at_start=False)
    assert divergence is not None
    down, *_, empty = restore_points(edited, divergence)
    staged = tmp_path / "staged.db"
    with staged.open("w+b") as file:
        # 0001_b has no down file.
        assert rewind_database(edited, divergence, down, staged, file.fileno()) is None
    staged.write_bytes(b"")
    with staged.open("r+b") as file:
        made = rewind_database(edited, divergence, empty, staged, file.fileno())
    assert made is not None
    assert [step.tag for step in made.steps] == ["0000_a", "0001_b"]
    assert made.lost == ()
