from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from local_mcp_gateway.database.pages import pages


def database(folder: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(folder / "app.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE notes (text)")
    return connection


def test_what_is_seen_before_commit_is_what_another_connection_reads_after_it(
    tmp_path: Path,
) -> None:
    with closing(database(tmp_path)) as writer, closing(database_reader(tmp_path)) as reader:
        before = pages(reader)
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO notes VALUES ('new')")
        written = pages(writer)
        writer.execute("COMMIT")
        found = pages(reader)
    assert before is not None
    assert written is not None
    assert found is not None
    assert found.agree(written)
    assert not found.agree(before)


def test_a_page_that_was_never_written_shows(tmp_path: Path) -> None:
    file = tmp_path / "app.db"
    with closing(database(tmp_path)) as writer:
        writer.execute("INSERT INTO notes VALUES ('old')")
        writer.execute("PRAGMA journal_mode=DELETE").fetchall()
        old = file.read_bytes()
        writer.execute("UPDATE notes SET text = 'new'")
        written = pages(writer)
    new = file.read_bytes()
    file.write_bytes(new[:4096] + old[4096:])
    with closing(database_reader(tmp_path)) as reader:
        found = pages(reader)
        assert reader.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert written is not None
    assert found is not None
    assert not found.agree(written)


def test_the_version_changes_when_another_connection_writes(tmp_path: Path) -> None:
    with closing(database(tmp_path)) as mine, closing(database_reader(tmp_path)) as other:
        before = pages(mine)
        other.execute("INSERT INTO notes VALUES ('of another program')")
        after = pages(mine)
    assert before is not None
    assert after is not None
    assert after.version != before.version


def test_a_database_that_moves_pages_at_commit_is_not_compared(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "moving.db")) as connection:
        connection.execute("PRAGMA auto_vacuum=FULL")
        connection.execute("CREATE TABLE notes (text)")
        assert pages(connection) is None


def database_reader(folder: Path) -> sqlite3.Connection:
    return sqlite3.connect(folder / "app.db", isolation_level=None)
