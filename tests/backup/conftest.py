"""A small WAL database with rows, and backups of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from local_mcp_gateway.backup import Backup, create_backup


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "app.db"
    path.parent.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO notes (text) VALUES (?)", [(f"note {n} " * 50,) for n in range(500)]
        )
        connection.execute("COMMIT")
    return path


@pytest.fixture
def back_up(database: Path) -> Callable[..., Backup]:
    def make(**values: Any) -> Backup:
        given = {"before": "0001_next", "fingerprint": "f00", "applied": ["0000_first"]}
        return create_backup(database, **{**given, "program_version": "0.1.0", **values})

    return make


@pytest.fixture
def backup(back_up: Callable[..., Backup]) -> Backup:
    return back_up()


@pytest.fixture
def live(database: Path) -> Iterator[sqlite3.Connection]:
    with closing(
        sqlite3.connect(database, isolation_level=None, check_same_thread=False)
    ) as connection:
        yield connection


def rows(path: Path) -> int:
    with closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True)) as connection:
        return int(connection.execute("SELECT count(*) FROM notes").fetchone()[0])
