"""Our own tables in a file that anybody can write to: what is not as we made it is refused by name."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from tests.harness import Finished, Place

NOTES = "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT);"
SWALLOWS = "BEFORE INSERT ON __drizzle_migrations BEGIN SELECT RAISE(IGNORE); END"
CHANGES = "AFTER INSERT ON __guard_history BEGIN UPDATE __guard_history SET tag = 'other'; END"
# The ledger and the history as we make them, but for what another program added.
LEDGER = (
    "CREATE TABLE __drizzle_migrations (id INTEGER PRIMARY KEY, hash text{}, created_at numeric)"
)
HISTORY = """CREATE TABLE __guard_history (id INTEGER PRIMARY KEY, event TEXT{}, tag TEXT, hash TEXT,
    created_at INTEGER, applied_at TEXT, duration_ms REAL, backup TEXT, program_version TEXT,
    fingerprint TEXT, previous_hash TEXT, schema_version INTEGER, sql TEXT, down TEXT)"""


@pytest.fixture
def pending(place: Place) -> Place:
    """A database of ours with another migration pending."""
    place.folder.add("notes", NOTES)
    place.migrate()
    place.folder.add("more", "ALTER TABLE notes ADD COLUMN more TEXT;")
    return place


def refused(place: Place, *command: str) -> Finished:
    before = place.content()
    done = place.run(*command)
    assert done.code == 8, done.stderr
    assert "Traceback" not in done.stderr
    assert place.content() == before
    return done


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        (
            f"CREATE TRIGGER watch {SWALLOWS}",
            "The trigger watch on __drizzle_migrations could change what the guard records.",
        ),
        (
            f"CREATE TRIGGER watch {CHANGES}",
            "The trigger watch on __guard_history could change what the guard records.",
        ),
        (
            "ALTER TABLE __guard_history RENAME TO h; CREATE VIEW __guard_history AS SELECT * FROM h",
            "__guard_history is a view, not the table in which the guard keeps its records.",
        ),
        (
            "ALTER TABLE __drizzle_migrations RENAME TO h; CREATE INDEX __drizzle_migrations ON h (hash)",
            "__drizzle_migrations is an index, not the table in which the guard keeps its records.",
        ),
        (
            "DROP TABLE __drizzle_migrations; CREATE VIRTUAL TABLE __drizzle_migrations USING fts5(hash)",
            "__drizzle_migrations is a virtual table, not the table in which the guard keeps its records.",
        ),
        (
            "DROP TABLE __guard_history; CREATE TABLE __guard_history (id INTEGER PRIMARY KEY, event)",
            (
                "__guard_history is not the table in which the guard keeps its records: it has no"
                " applied_at."
            ),
        ),
    ],
    ids=["swallowing trigger", "changing trigger", "view", "index", "virtual table", "other table"],
)
def test_what_has_the_name_of_a_table_of_ours_is_refused_by_name(
    pending: Place, sql: str, message: str
) -> None:
    with closing(sqlite3.connect(pending.database)) as other:
        other.executescript(sql)
    told = refused(pending, "db", "migrate")
    assert message in told.stderr
    assert "→" in told.stderr
    status = pending.run("db", "status", "--json").json()
    assert status["state"] == "refused"
    (problem,) = status["problems"]
    assert (problem["code"], problem["message"]) == ("not_our_table", message)
    assert message in refused(pending, "db", "history").stderr
    assert message in refused(pending, "db", "down", "--yes").stderr
    assert pending.run("db", "backup", "create").code == 0


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        (
            f"CREATE VIEW __guard_history AS SELECT 1; {NOTES}",
            "line 1, statement 1: __guard_history belongs to the migration guard",
        ),
        (
            f"{NOTES} CREATE INDEX __drizzle_migrations ON notes (body);",
            "statement 2: __drizzle_migrations belongs to the migration guard",
        ),
        (
            "CREATE VIRTUAL TABLE __guard_history USING fts5(tag);",
            "statement 1: __guard_history belongs to the migration guard",
        ),
        (
            f'{NOTES} ALTER TABLE notes RENAME TO "__Guard_History";',
            "statement 2: __Guard_History belongs to the migration guard",
        ),
    ],
    ids=["view", "index", "virtual table", "rename"],
)
def test_a_migration_that_takes_the_name_of_a_table_of_ours_is_refused(
    place: Place, sql: str, message: str
) -> None:
    place.folder.add("takes", sql)
    done = place.run("db", "migrate")
    assert done.code == 5
    assert message in done.stderr
    assert not place.database.exists()


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (
            (LEDGER.format(" UNIQUE ON CONFLICT IGNORE"),),
            "__drizzle_migrations does not hold what was written to it.",
        ),
        (
            (LEDGER.format(" CHECK (length(hash) < 9)"),),
            "__drizzle_migrations refuses a row: CHECK constraint failed",
        ),
        (
            (
                LEDGER.format(""),
                HISTORY.format(" UNIQUE ON CONFLICT IGNORE"),
            ),
            "__guard_history does not hold what was written to it.",
        ),
    ],
    ids=["ledger ignores", "ledger refuses", "history ignores"],
)
def test_a_row_that_does_not_read_back_as_written_ends_before_commit(
    place: Place, tables: tuple[str, ...], message: str
) -> None:
    place.folder.add("one", "SELECT 1;")
    place.folder.add("same_text", "SELECT 1;")
    for table in tables:
        place.write(table)
    before = place.content()
    done = place.run("db", "migrate")
    assert done.code == 5
    assert message in done.stderr
    assert place.content() == before


def test_a_ledger_in_other_letters_is_the_ledger(place: Place) -> None:
    place.folder.add("notes", NOTES)
    place.write(LEDGER.format("").replace("__drizzle_migrations", "__DRIZZLE_MIGRATIONS"))
    assert place.migrate().code == 0
    assert place.run("db", "status", "--json").json()["state"] == "current"
