"""A copy that somebody puts in the place of a database is not written over by the log that still stands there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.kept import data_files
from tests.harness import Place

CRASH = """
import os, sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute("PRAGMA wal_autocheckpoint=0")
c.execute("PRAGMA cache_size=10")
c.execute("UPDATE notes SET text = 'later'")
c.execute("BEGIN")
c.execute("INSERT INTO notes (id, text) SELECT 2, hex(zeroblob(900000))")
if sys.argv[2] == "WAL": c.execute("COMMIT")
os._exit(9)
"""
COMMANDS = (
    ("db", "migrate"),
    ("db", "migrate", "--dry-run"),
    ("db", "status"),
    ("db", "check"),
    ("db", "backup", "create"),
    ("db", "rehearse"),
    ("db", "history"),
)


@pytest.fixture(params=["WAL", "DELETE"])
def replaced(request: pytest.FixtureRequest, kept: Place) -> Place:
    """A place where a program crashed, and a copy from before was put over the database."""
    mode = str(request.param)
    kept.write(f"PRAGMA journal_mode={mode}")
    assert kept.run("db", "migrate").code == 0
    copy = Path(shutil.copyfile(kept.database, kept.root / "copy.db"))
    for text in ("one", "two", "three"):
        kept.write(f"UPDATE notes SET text = '{text}'")
    done = subprocess.run([sys.executable, "-c", CRASH, kept.database, mode], check=False)
    assert done.returncode == 9
    for path in kept.database.parent.glob("gateway.db-*"):
        os.utime(path, (1, 1))  # nobody puts a file in place within a second
    kept.database.unlink()
    shutil.copyfile(copy, kept.database)
    return kept


def test_every_command_refuses_the_log_of_another_file(replaced: Place) -> None:
    before = replaced.database.read_bytes()
    for command in COMMANDS:
        done = replaced.run(*command)
        assert done.code == 8, (command, done)
        assert "of another file" in done.stdout + done.stderr
        assert "`db restore FILE`" in done.stdout + done.stderr
    assert replaced.database.read_bytes() == before


def test_the_database_is_served_as_it_is_once_the_log_is_moved_away(replaced: Place) -> None:
    for path in replaced.database.parent.glob("gateway.db-*"):
        path.rename(f"{path}.old")
    assert replaced.run("db", "migrate").code == 0
    assert replaced.query("SELECT id, text FROM notes") == [(1, "kept")]


def test_restore_takes_a_plain_copy_whatever_stands_beside_the_database(replaced: Place) -> None:
    done = replaced.run("db", "restore", replaced.root / "copy.db", "--yes", "--json")
    assert done.code == 0, done
    restored = done.json()["restored"]
    assert restored["applied"] == ["0000_notes", "0001_pinned"]
    assert restored["bytes"] == (replaced.root / "copy.db").stat().st_size
    assert replaced.run("db", "check").code == 0
    assert replaced.query("SELECT id, text FROM notes") == [(1, "kept")]
    assert Path(done.json()["replaced"]).exists()


def test_a_copy_is_checked_before_it_is_restored(kept: Place) -> None:
    copy = Path(shutil.copyfile(kept.database, kept.root / "copy.db"))
    before = data_files(kept)
    data = bytearray(copy.read_bytes())
    data[-4096:] = b"\xff" * 4096
    copy.write_bytes(data)
    assert kept.run("db", "restore", copy, "--yes").code == 6
    copy.write_text("no database")
    assert kept.run("db", "restore", "./copy.db", "--yes").code == 6
    copy.unlink()
    assert kept.run("db", "restore", copy, "--yes").code == 8
    assert kept.run("db", "restore", kept.database, "--yes").code == 2
    assert data_files(kept) == before


def test_a_copy_that_lacks_its_newest_changes_is_not_restored(kept: Place) -> None:
    copy = Path(shutil.copyfile(kept.database, kept.root / "copy.db"))
    subprocess.run([sys.executable, "-c", CRASH, copy, "WAL"], check=False)
    refused = kept.run("db", "restore", copy, "--yes")
    assert refused.code == 8
    assert "the newest changes are in copy.db-wal" in refused.stderr


def test_an_empty_file_beside_a_log_is_not_taken_for_a_new_database(place: Place) -> None:
    place.write("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)")
    place.write("PRAGMA journal_mode=WAL")
    subprocess.run([sys.executable, "-c", CRASH, place.database, "WAL"], check=False)
    place.database.write_bytes(b"")
    place.folder.add("notes", "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)")
    assert place.run("db", "migrate").code == 8
    assert place.run("db", "migrate", "--fresh").code == 0
