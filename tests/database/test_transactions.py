"""A commit is proved by reading it back, and what is not committed is rolled back."""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from local_mcp_gateway.database import (
    commit_and_compare,
    database_bytes,
    kept_file,
    outside_transaction,
    reading,
    staged_transaction,
    write_lock,
)
from local_mcp_gateway.errors import DatabaseBusy, DiskProblem


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "app.db"
    with write_lock(path) as live:
        live.execute("CREATE TABLE a (x)")
        commit_and_compare(live, path)
    return path


def rows(path: Path) -> list[tuple[object, ...]]:
    with reading(path) as reader:
        return reader.execute("SELECT x FROM a").fetchall()


def test_what_is_not_committed_is_rolled_back(database: Path) -> None:
    with write_lock(database) as live:
        live.execute("INSERT INTO a VALUES (1)")
    assert rows(database) == []


def test_a_file_that_was_made_for_nothing_is_gone_again(tmp_path: Path) -> None:
    new = tmp_path / "new.db"
    with write_lock(new) as live:
        live.execute("CREATE TABLE t(x)")
    assert list(tmp_path.iterdir()) == []
    with write_lock(new) as live:
        live.execute("CREATE TABLE t(x)")
        live.execute("COMMIT")
    assert new.exists()


def test_a_file_that_another_program_has_open_stays(tmp_path: Path) -> None:
    new = tmp_path / "new.db"
    with ExitStack() as left:
        with write_lock(new):
            other = left.enter_context(closing(sqlite3.connect(new)))
            assert other.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)
        assert new.exists()


def test_a_commit_is_in_the_file_itself(database: Path) -> None:
    with write_lock(database) as live:
        live.execute("INSERT INTO a VALUES (1)")
        commit_and_compare(live, database)
        assert not live.in_transaction
        assert database_bytes(database) == database.stat().st_size
    assert rows(database) == [(1,)]


def test_another_writer_is_waited_for_and_then_named(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("local_mcp_gateway.database.connections.BUSY_TIMEOUT_MS", 10)
    with (
        write_lock(database),
        pytest.raises(DatabaseBusy, match="Another program is using"),
        write_lock(database),
    ):
        pass


def test_a_transaction_is_left_and_entered_again(database: Path) -> None:
    with write_lock(database) as live:
        with outside_transaction(live):
            assert not live.in_transaction
        assert live.in_transaction


def test_a_file_that_is_kept_is_written(database: Path) -> None:
    with kept_file(database) as scratch:
        scratch.execute("PRAGMA journal_mode=WAL").fetchall()  # as a migration may do
        scratch.execute("INSERT INTO a VALUES (1)")
    assert rows(database) == [(1,)]


def lose_a_page(path: Path, page: int) -> None:
    with kept_file(path) as scratch:
        scratch.execute("CREATE TABLE big (id INTEGER PRIMARY KEY, body TEXT)")
        scratch.executemany("INSERT INTO big (body) VALUES (?)", [("old" * 100,)] * 100)
        before = path.read_bytes()
        scratch.execute("BEGIN")
        scratch.execute("CREATE TABLE more (x)")
        scratch.execute("UPDATE big SET body = replace(body, 'old', 'new')")
        scratch.execute("COMMIT")
        at = page % (len(before) // 4096) * 4096
        with path.open("r+b") as file:
            file.seek(at)
            file.write(before[at : at + 4096])


@pytest.mark.parametrize("page", [0, -1])
def test_a_page_that_a_disk_lost_is_found_in_a_file_that_is_kept(database: Path, page: int) -> None:
    with pytest.raises(DiskProblem, match="a write was lost"):
        lose_a_page(database, page)


def test_a_staged_file_is_whole_and_in_the_journal_mode_of_the_other(
    database: Path, tmp_path: Path
) -> None:
    staged = tmp_path / "staged.db"
    with staged_transaction(staged, like=database) as fresh:
        fresh.execute("CREATE TABLE b (x)")
    assert not list(tmp_path.glob("staged.db-*"))
    with closing(sqlite3.connect(staged)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("SELECT count(*) FROM b").fetchone() == (0,)
