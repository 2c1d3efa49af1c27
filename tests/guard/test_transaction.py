"""What every command that changes a database has in common: the lock, the write lock, and what lasts."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from local_mcp_gateway.database.lock import DatabaseLock
from local_mcp_gateway.errors import Interrupted, LockHeld, NoRoom
from local_mcp_gateway.guard import guarded
from local_mcp_gateway.guard.commands import repairing, seed_guarded
from local_mcp_gateway.guard.context import GuardContext
from local_mcp_gateway.guard.down import go_back
from local_mcp_gateway.guard.transaction import exclusive, write_transaction
from tests.harness import Place


@pytest.fixture
def notes(place: Place) -> Place:
    place.folder.add("notes", "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT);")
    place.folder.add("more", "ALTER TABLE notes ADD COLUMN more TEXT;")
    down = place.folder.path / "0001_more.down.sql"
    down.write_text("ALTER TABLE notes DROP COLUMN more;")
    with guarded(place.database, place.folder.path):
        pass
    (place.root / "seed.sql").write_text("INSERT INTO notes (body) VALUES ('seeded');")
    return place


def take_back(context: GuardContext) -> object:
    return go_back(context, steps=1, to=None)


def seed(context: GuardContext) -> object:
    return seed_guarded(context, [context.migrations.parent / "seed.sql"])


def trust(context: GuardContext) -> object:
    file = context.migrations / "0000_notes.sql"
    file.write_text(f"{file.read_text()}-- edited\n")
    with repairing(context) as repair:
        return repair.trust_files(lambda _: None)


WRITERS = pytest.mark.parametrize("write", [take_back, seed, trust])


def context(place: Place, stop: threading.Event | None = None) -> GuardContext:
    return GuardContext(place.database, place.folder.path, stop=stop)


def content(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        return list(connection.iterdump())


@WRITERS
def test_every_command_is_flushed_and_read_back(
    notes: Place, write: Callable[[GuardContext], object]
) -> None:
    run = context(notes)
    before = content(notes.database)
    write(run)
    assert content(notes.database) != before
    phases = list(run.phases.durations_ms)
    assert phases[:3] == ["lock", "check", "hold"]
    assert phases[-2:] == ["commit", "durable"]


@WRITERS
def test_a_stop_ends_every_command_with_the_database_as_it_was(
    notes: Place, write: Callable[[GuardContext], object]
) -> None:
    stop = threading.Event()
    stop.set()
    before = content(notes.database)
    with pytest.raises(Interrupted):
        write(context(notes, stop))
    assert content(notes.database) == before


@WRITERS
def test_every_command_names_who_holds_the_lock(
    notes: Place, write: Callable[[GuardContext], object]
) -> None:
    with DatabaseLock(notes.database), pytest.raises(LockHeld, match="is locked by process"):
        write(context(notes))


def test_what_a_block_does_not_commit_is_rolled_back(notes: Place) -> None:
    before = content(notes.database)
    run = context(notes)
    with exclusive(run), write_transaction(run, backs_up=False) as transaction:
        transaction.connection.execute("DELETE FROM notes")
        transaction.connection.execute("INSERT INTO notes (body) VALUES ('not kept')")
    assert content(notes.database) == before
    assert "durable" not in run.phases.durations_ms


def test_an_error_of_sqlite_in_the_block_is_a_situation_and_nothing_is_changed(
    notes: Place,
) -> None:
    before = content(notes.database)
    run = context(notes)

    def fill() -> None:
        with exclusive(run), write_transaction(run, backs_up=False) as transaction:
            connection = transaction.connection
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count={pages + 1}")
            connection.execute("INSERT INTO notes (body) VALUES (randomblob(100000))")
            transaction.commit()

    with pytest.raises(NoRoom, match="The disk is full"):
        fill()
    assert content(notes.database) == before
