"""What only reads works where nothing can be written, and says so."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness import Place
from tests.needs import held_to_modes

READING = (
    ("db", "status"),
    ("db", "check"),
    ("db", "diff"),
    ("db", "history"),
    ("db", "migrate", "--dry-run"),
    ("db", "rehearse"),
)


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    folder.chmod(0o500)
    try:
        yield
    finally:
        folder.chmod(0o700)


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_every_command_that_reads_works_in_a_folder_that_cannot_be_written(
    kept: Place, mode: str
) -> None:
    prefix = held_to_modes()
    kept.write(f"PRAGMA journal_mode={mode}")
    data = kept.database.parent
    with unwritable(data / "backups"), unwritable(data):
        before = sorted(data.iterdir())
        for command in READING:
            done = kept.run(*command, prefix=prefix)
            assert done.code == 0, (command, done)
        assert sorted(data.iterdir()) == before
        status = kept.run("db", "status", prefix=prefix)
        assert "can only be read by this user" in status.stdout
        assert kept.run("db", "status", "--json", prefix=prefix).json()["read_only"] is True
    assert kept.run("db", "status", "--json").json()["read_only"] is False


def test_a_log_that_cannot_be_read_there_is_named(kept: Place) -> None:
    prefix = held_to_modes()
    crash = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('UPDATE notes SET text = 1'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", crash, kept.database], check=False)
    kept.database.with_name("gateway.db-shm").unlink()
    data = kept.database.parent
    with unwritable(data):
        for command in READING:
            done = kept.run(*command, prefix=prefix)
            assert done.code == 7, (command, done)
            assert "gateway.db-wal has changes" in done.stderr
            assert "Copy both into a folder that can be written" in done.stderr
    assert kept.query("SELECT text FROM notes") == [("1",)]


def test_a_database_that_may_only_be_read_is_shown_and_not_migrated(kept: Place) -> None:
    prefix = held_to_modes()
    kept.database.chmod(0o400)
    shown = kept.run("db", "status", prefix=prefix)
    assert shown.code == 0
    assert "can only be read by this user" in shown.stdout
    assert f"{kept.database} can only be read." in kept.run("doctor", prefix=prefix).stdout
    assert kept.run("db", "migrate", prefix=prefix).code == 7
