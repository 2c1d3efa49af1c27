"""A database that is empty or gone, and has backups or had content, is not taken for a new one."""

from __future__ import annotations

import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing

import pytest

from tests.cli.kept import backups
from tests.harness import Finished, Place


def remove(place: Place) -> None:
    for suffix in ("", "-wal", "-shm"):
        place.database.with_name(place.database.name + suffix).unlink(missing_ok=True)


def truncate(place: Place) -> None:
    remove(place)
    place.database.touch()


def drop_all(place: Place) -> None:
    """Put a database with no table in its place, as a program that opened the path would."""
    remove(place)
    with closing(sqlite3.connect(place.database, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode=WAL")


ways = pytest.mark.parametrize("empty", [remove, truncate, drop_all])


def migrated(place: Place) -> Place:
    place.folder.add("notes", "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)")
    place.migrate()
    return place


def refused(done: Finished) -> dict[str, str]:
    assert done.code == 8, done
    error: dict[str, str] = done.json()["error"]
    assert error["code"] == "database_emptied"
    return error


@ways
def test_an_emptied_database_is_refused_with_the_newest_good_backup(
    kept: Place, empty: Callable[[Place], None]
) -> None:
    (backup,) = backups(kept)
    empty(kept)
    error = refused(kept.run("db", "migrate", "--json"))
    assert str(kept.database) in error["message"]
    command = shlex.split(error["hint"].split("`")[1])
    assert command[-1] == backup["name"]
    assert kept.run(*command[1:], "--yes", bare=True).code == 0
    assert kept.query("SELECT id, text FROM notes") == [(1, "kept")]
    assert kept.run("db", "migrate").code == 0


@ways
def test_fresh_begins_with_a_new_database(kept: Place, empty: Callable[[Place], None]) -> None:
    empty(kept)
    assert kept.run("db", "migrate", "--fresh").code == 0
    assert kept.query("SELECT count(*) FROM notes") == [(0,)]
    assert len(backups(kept)) == 1
    assert kept.run("db", "migrate").code == 0


@pytest.mark.parametrize("empty", [remove, truncate])
def test_a_database_without_backups_is_known_by_its_last_clean_stop(
    place: Place, empty: Callable[[Place], None]
) -> None:
    empty(migrated(place))
    for _ in range(2):  # a refusal does not make the next start forget
        assert "had" in refused(place.run("db", "migrate", "--json"))["message"]
    assert place.run("db", "migrate", "--fresh").code == 0
    assert place.run("db", "migrate").code == 0


def test_what_the_last_clean_stop_recorded_survives_a_kill(place: Place) -> None:
    migrated(place)
    die_with_it = (
        "import os, sys; from pathlib import Path;"
        "from local_mcp_gateway.database.lock import DatabaseLock;"
        "DatabaseLock(Path(sys.argv[1])).__enter__(); os._exit(9)"
    )
    killed = subprocess.run([sys.executable, "-c", die_with_it, place.database], check=False)
    assert killed.returncode == 9
    truncate(place)
    refused(place.run("db", "migrate", "--json"))


@ways
def test_commands_that_only_look_say_that_it_is_emptied_and_offer_the_backup(
    kept: Place, empty: Callable[[Place], None]
) -> None:
    (backup,) = backups(kept)
    empty(kept)
    status = kept.run("db", "status", "--json")
    assert status.code == 8
    shown = status.json()
    assert shown["state"] == "refused"
    assert shown["problems"][0]["code"] == "database_emptied"
    assert [pending["tag"] for pending in shown["pending"]] == ["0000_notes", "0001_pinned"]
    for command in (("db", "status"), ("db", "migrate", "--dry-run"), ("db", "check"), ("doctor",)):
        told = kept.run(*command)
        assert f"db restore {backup['name']}" in " ".join((told.stdout + told.stderr).split())


def test_every_writing_command_refuses_an_emptied_database(kept: Place) -> None:
    truncate(kept)
    refused(kept.run("server", "add", "x", "--json", "--", "/bin/cat"))
    refused(kept.run("db", "seed", "--json"))
    assert kept.database.stat().st_size == 0


def test_a_start_refuses_an_emptied_database_and_names_it_in_its_log(kept: Place) -> None:
    truncate(kept)
    done = kept.run("--log-format", "json", "serve", "--port", "0")
    assert done.code == 8
    (event,) = [event for event in done.events() if event["event"] == "guard.refused"]
    assert event["code"] == "database_emptied"


def test_reset_makes_a_new_database_where_the_old_one_is_gone(kept: Place) -> None:
    remove(kept)
    assert kept.run("db", "reset", "--yes").code == 0
    assert kept.run("db", "migrate").code == 0


def test_a_refused_first_start_is_followed_by_a_first_start(place: Place) -> None:
    place.folder.add("broken", "CREATE TABEL notes (id)")
    assert place.run("db", "migrate").code == 5
    place.folder.write("0000_broken", "CREATE TABLE notes (id)")
    assert place.run("db", "migrate").code == 0
