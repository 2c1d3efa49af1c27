"""One table says what an error of SQLite or the system means, whoever was at work when it came."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from local_mcp_gateway.backup.files import named_failures
from local_mcp_gateway.database.errors import to_gateway_error, translated_errors
from local_mcp_gateway.errors import (
    BackupFailed,
    Damaged,
    DatabaseBusy,
    DatabasePathProblem,
    DiskProblem,
    GatewayError,
    Interrupted,
    NoRoom,
    NotADatabase,
)


def full(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA max_page_count=2")
        connection.execute("CREATE TABLE notes (body)")
        connection.execute("INSERT INTO notes VALUES (randomblob(100000))")


def no_database(path: Path) -> None:
    path.write_text("this is a letter, not a database " * 10)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("SELECT * FROM sqlite_schema")


def damaged(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE notes (body)")
        connection.executemany("INSERT INTO notes VALUES (?)", [("x" * 2000,)] * 40)
        connection.commit()
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("SELECT body FROM notes").fetchall()


def busy(path: Path) -> None:
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as one,
        closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other,
    ):
        one.execute("BEGIN IMMEDIATE")
        other.execute("BEGIN IMMEDIATE")


def interrupted(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.set_progress_handler(lambda: 1, 1)
        connection.execute("SELECT 1 FROM (SELECT 1 UNION SELECT 2)").fetchall()


def not_opened(path: Path) -> None:
    with closing(sqlite3.connect(path / "of" / "nobody.db")) as connection:
        connection.execute("SELECT * FROM sqlite_schema")


def system(number: int) -> Callable[[Path], None]:
    def fail(path: Path) -> None:
        raise OSError(number, os.strerror(number), str(path))

    return fail


FAILURES: dict[str, tuple[Callable[[Path], None], type[GatewayError]]] = {
    "SQLite: full": (full, NoRoom),
    "SQLite: no database": (no_database, NotADatabase),
    "SQLite: damaged": (damaged, Damaged),
    "SQLite: busy": (busy, DatabaseBusy),
    "SQLite: interrupted": (interrupted, Interrupted),
    "system: disk full": (system(errno.ENOSPC), NoRoom),
    "system: quota": (system(errno.EDQUOT), NoRoom),
    "system: file too large": (system(errno.EFBIG), NoRoom),
    "system: input/output": (system(errno.EIO), DiskProblem),
}


@pytest.mark.parametrize(("fail", "situation"), FAILURES.values(), ids=FAILURES)
def test_a_failure_is_the_same_situation_for_the_database_and_for_a_backup(
    tmp_path: Path, fail: Callable[[Path], None], situation: type[GatewayError]
) -> None:
    path = tmp_path / "app.db"
    with pytest.raises(situation) as plain, translated_errors(path):
        fail(path)
    path.unlink(missing_ok=True)
    with pytest.raises(situation) as named, named_failures(path, doing="write a backup into"):
        fail(path)
    assert type(plain.value) is type(named.value) is situation
    assert str(path) in plain.value.message
    assert named.value.message.startswith(f"Cannot write a backup into {path}: ")
    assert named.value.__cause__ is not None


@pytest.mark.parametrize(
    "fail",
    [not_opened, system(errno.EACCES), system(errno.EROFS)],
    ids=["SQLite: not opened", "system: no permission", "system: read-only"],
)
def test_what_may_not_be_written_is_the_database_or_the_backup_that_was_meant(
    tmp_path: Path, fail: Callable[[Path], None]
) -> None:
    with pytest.raises(DatabasePathProblem), translated_errors(tmp_path):
        fail(tmp_path)
    with pytest.raises(BackupFailed), named_failures(tmp_path, doing="write a backup into"):
        fail(tmp_path)


def test_an_error_of_the_statement_itself_is_whoevers_ran_it(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        with pytest.raises(sqlite3.OperationalError) as caught, translated_errors(tmp_path):
            connection.execute("CREAT TABLE notes (body)")
        assert to_gateway_error(caught.value, tmp_path) is None
        with pytest.raises(BackupFailed), named_failures(tmp_path, doing="read the backup"):
            connection.execute("SELECT * FROM nothing")
