"""Connections keep no compiled statement: the authorizer sees each one, and an ALTER leaves none behind."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from local_mcp_gateway.database.connections import open_migration, open_reader, open_scratch


def test_the_authorizer_is_asked_each_time_that_the_same_statement_runs(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    asked: list[str | None] = []

    def decide(_action: int, first: str | None, *_: str | None) -> int:
        asked.append(first)
        return sqlite3.SQLITE_OK

    with closing(open_migration(path)) as one:
        one.execute("CREATE TABLE notes (body)")
    for opened in (open_migration, open_reader, open_scratch):
        with closing(opened(path)) as connection:
            connection.set_authorizer(decide)
            for _ in range(3):
                asked.clear()
                connection.execute("SELECT body FROM notes").fetchall()
                assert "notes" in asked


EXPLAINED_AGAIN = """
from local_mcp_gateway.database.connections import open_scratch
connection = open_scratch()
connection.execute("CREATE TABLE parent(id INTEGER PRIMARY KEY, name TEXT COLLATE NOCASE UNIQUE)")
connection.execute("CREATE TABLE child(id INTEGER PRIMARY KEY)")
for number in range(20):
    connection.execute("EXPLAIN DELETE FROM parent WHERE id = 1").fetchall()
    connection.execute(f"ALTER TABLE child ADD COLUMN c{number} INTEGER")
    connection.execute("EXPLAIN DELETE FROM parent WHERE id = 1").fetchall()
"""


def test_a_statement_is_explained_again_after_an_alter_without_a_crash() -> None:
    overwrites = {"MALLOC_PERTURB_": "165"}  # glibc then overwrites what is freed
    subprocess.run(
        [sys.executable, "-c", EXPLAINED_AGAIN], env=os.environ | overwrites, check=True, timeout=60
    )
