"""The lock next to the database: one holder, named to the others, freed however it dies."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from local_mcp_gateway.database.integrity import probe
from local_mcp_gateway.database.lock import (
    DatabaseLock,
    Holder,
    hold_new_file,
    lock_path,
    read_holder,
)
from local_mcp_gateway.errors import DatabasePathProblem, Interrupted, LockHeld, NotADatabase

HOLD = """
import sys
from pathlib import Path
from local_mcp_gateway.database.lock import DatabaseLock
with DatabaseLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def start_holder(database: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str], *, kill: bool = False) -> None:
    if kill:
        process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)


def test_a_second_process_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    database = tmp_path / "app.db"
    other = start_holder(database)
    try:
        with (
            pytest.raises(LockHeld, match=f"process {other.pid}") as caught,
            DatabaseLock(database),
        ):
            pass
        assert caught.value.data["pid"] == other.pid
    finally:
        end(other)


def test_a_killed_holder_frees_the_lock_and_is_nobody(tmp_path: Path) -> None:
    database = tmp_path / "app.db"
    other = start_holder(database)
    end(other, kill=True)
    assert read_holder(database) is None
    with DatabaseLock(database):
        holder = read_holder(database)
        assert holder is not None
        assert holder.pid == os.getpid()
    assert read_holder(database) is None


def test_the_same_process_cannot_take_it_twice(tmp_path: Path) -> None:
    with DatabaseLock(tmp_path / "a.db"), pytest.raises(LockHeld), DatabaseLock(tmp_path / "a.db"):
        pass


def test_two_names_of_one_file_share_one_lock(tmp_path: Path) -> None:
    (tmp_path / "real.db").touch()
    (tmp_path / "link.db").symlink_to(tmp_path / "real.db")
    with (
        DatabaseLock(tmp_path / "real.db"),
        pytest.raises(LockHeld),
        DatabaseLock(tmp_path / "link.db"),
    ):
        pass


def bind(source: Path, target: Path) -> None:
    """Let `target` be `source` too, as a container's file mount does; skip where that cannot be."""
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "--bind", source, target], check=False).returncode
    ):
        pytest.skip("needs root and mounts")


def second_name(database: Path, how: str) -> Path:
    other = database.with_name("other.db")
    match how:
        case "a hard link":
            other.hardlink_to(database)
        case "moved while it is served":
            database.rename(other)
        case "mounted elsewhere":
            other.touch()
            bind(database, other)
    return other


@pytest.mark.parametrize("how", ["a hard link", "moved while it is served", "mounted elsewhere"])
def test_a_second_name_of_the_file_is_locked_too(tmp_path: Path, how: str) -> None:
    database = tmp_path / "app.db"
    sqlite3.connect(database).executescript("CREATE TABLE t(x)").connection.close()
    if how == "mounted elsewhere":  # to be skipped before another process is started
        bind(tmp_path, tmp_path)
        subprocess.run(["umount", tmp_path], check=True)
    holder = start_holder(database)
    other = second_name(database, how)
    try:
        with pytest.raises(LockHeld, match="under another name"), DatabaseLock(other):
            pass
        stop = threading.Event()
        with (
            pytest.raises(Interrupted),
            DatabaseLock(other, timeout_s=60, on_wait=lambda _: stop.set(), stop=stop),
        ):
            pass
    finally:
        end(holder)
        if how == "mounted elsewhere":
            subprocess.run(["umount", other], check=True)
    with DatabaseLock(other):
        pass


def test_a_file_that_was_made_or_replaced_is_the_one_that_is_locked(tmp_path: Path) -> None:
    database = tmp_path / "app.db"
    with DatabaseLock(database):
        for _ in range(2):
            (tmp_path / "new.db").touch()
            (tmp_path / "new.db").rename(database)
            hold_new_file(database)
            (tmp_path / "other.db").hardlink_to(database)
            with pytest.raises(LockHeld), DatabaseLock(tmp_path / "other.db"):
                pass
            (tmp_path / "other.db").unlink()


def test_a_clean_stop_says_nothing_of_a_file_that_took_the_place(tmp_path: Path) -> None:
    database = tmp_path / "app.db"
    sqlite3.connect(database).executescript("CREATE TABLE t(x)").connection.close()
    with DatabaseLock(database) as lock:
        sqlite3.connect(tmp_path / "new.db").executescript("CREATE TABLE u(x)").connection.close()
        (tmp_path / "new.db").rename(database)
        lock.record_clean_stop()
    with DatabaseLock(database):
        assert probe(database).state == "checked"


def test_the_lock_keeps_the_locks_of_sqlites_connections(tmp_path: Path) -> None:
    database = tmp_path / "app.db"
    with DatabaseLock(database):
        connection = sqlite3.connect(database, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        hold_new_file(database)
        connection.execute("CREATE TABLE t(x)")
        connection.execute("COMMIT")
        connection.close()


def test_two_hard_links_are_refused_with_the_way_out(tmp_path: Path) -> None:
    database = tmp_path / "app.db"
    sqlite3.connect(database).executescript("CREATE TABLE t(x)").connection.close()
    (tmp_path / "other.db").hardlink_to(database)
    with DatabaseLock(database), pytest.raises(DatabasePathProblem, match="has 2 names") as raised:
        probe(database)
    assert "-samefile" in raised.value.hint


def test_a_file_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    database = tmp_path / "app.db"
    sqlite3.connect(database).executescript("CREATE TABLE t(x)").connection.close()
    bind(database, database)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", database], check=True)
        with (
            pytest.raises(DatabasePathProblem, match="cannot be written by this user: Read-only"),
            DatabaseLock(database),
        ):
            pass
    finally:
        subprocess.run(["umount", database], check=True)


def test_a_waiting_start_gets_the_lock_when_the_holder_stops(tmp_path: Path) -> None:
    database = tmp_path / "app.db"
    other = start_holder(database)
    waits: list[Holder | None] = []

    def on_wait(holder: Holder | None) -> None:
        waits.append(holder)
        end(other)

    with DatabaseLock(database, timeout_s=10, on_wait=on_wait):
        assert [holder.pid for holder in waits if holder] == [other.pid]


def test_a_stop_ends_the_waiting(tmp_path: Path) -> None:
    database = tmp_path / "app.db"
    stop = threading.Event()
    with (
        DatabaseLock(database),
        pytest.raises(Interrupted),
        DatabaseLock(database, timeout_s=60, on_wait=lambda _: stop.set(), stop=stop),
    ):
        pass


def test_the_lock_file_is_private_and_stays(tmp_path: Path) -> None:
    database = tmp_path / "app.db"
    with DatabaseLock(database):
        pass
    assert lock_path(database).stat().st_mode & 0o777 == 0o600


def test_a_lock_file_with_rubbish_in_it_is_an_unknown_holder(tmp_path: Path) -> None:
    lock_path(tmp_path / "a.db").write_text("{not json")
    assert read_holder(tmp_path / "a.db") is None
    with DatabaseLock(tmp_path / "a.db"):
        pass


def test_a_process_that_took_over_the_number_is_not_the_holder(tmp_path: Path) -> None:
    record = {"pid": os.getpid(), "since": "2026-01-01T00:00:00Z", "command": "serve", "started": 1}
    lock_path(tmp_path / "a.db").write_text(json.dumps({"holder": record}))
    assert read_holder(tmp_path / "a.db") is None


def make(database: Path) -> None:
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE t(a)")
    connection.commit()
    connection.close()


def test_after_a_clean_stop_only_the_header_is_read(tmp_path: Path) -> None:
    database = tmp_path / "a.db"
    make(database)
    with DatabaseLock(database) as lock:
        assert probe(database).state == "checked"
        lock.record_clean_stop()
    for _ in range(2):  # a start that is refused touches nothing, so the file stays clean
        with DatabaseLock(database):
            assert probe(database).state == "clean"


def test_after_a_crash_the_file_is_checked_again(tmp_path: Path) -> None:
    database = tmp_path / "a.db"
    make(database)
    with DatabaseLock(database) as lock:
        lock.record_clean_stop()
    end(start_holder(database), kill=True)
    with DatabaseLock(database):
        assert probe(database).state == "checked"


def test_a_write_by_another_program_after_the_stop_is_noticed(tmp_path: Path) -> None:
    database = tmp_path / "a.db"
    make(database)
    with DatabaseLock(database) as lock:
        lock.record_clean_stop()
    connection = sqlite3.connect(database)
    connection.execute("INSERT INTO t VALUES (1)")
    connection.commit()
    connection.close()
    with DatabaseLock(database):
        assert probe(database).state == "checked"


def test_no_lock_file_is_left_beside_what_is_no_database(tmp_path: Path) -> None:
    """`/etc/passwd.lock` is another program's: it would wait for us for ever."""
    file = tmp_path / "passwd"
    file.write_text("root:x:0:0:root:/root:/bin/bash\n")
    with pytest.raises(NotADatabase, match="passwd is not a SQLite database"), DatabaseLock(file):
        pass
    assert list(tmp_path.iterdir()) == [file]


def test_a_database_whose_header_is_gone_can_be_locked_to_be_replaced(tmp_path: Path) -> None:
    file = tmp_path / "app.db"
    file.write_bytes(b"\0" * 4096)
    with DatabaseLock(file, replaces=True):
        assert lock_path(file).exists()


def test_a_pipe_in_the_place_of_a_database_that_was_locked_before_is_named(tmp_path: Path) -> None:
    database = tmp_path / "app.db"
    lock_path(database).touch()
    os.mkfifo(database)
    with pytest.raises(DatabasePathProblem, match="is a named pipe, not a database file"):
        DatabaseLock(database).__enter__()


def test_a_name_that_leaves_no_room_for_those_of_its_backups_is_refused(tmp_path: Path) -> None:
    longest = tmp_path / ("é" * 48 + ".db")
    with DatabaseLock(longest.with_name(f"x{longest.name}")):
        pass
    with (
        pytest.raises(DatabasePathProblem, match="has 101 bytes; those of its backups"),
        DatabaseLock(longest.with_name(f"xx{longest.name}")),
    ):
        pass
    with pytest.raises(DatabasePathProblem), DatabaseLock(tmp_path / ("x" * 300)):
        pass


def test_a_folder_in_the_place_of_the_lock_file_is_to_be_moved(tmp_path: Path) -> None:
    lock_path(tmp_path / "app.db").mkdir()
    with pytest.raises(DatabasePathProblem, match=r"app\.db\.lock cannot .* folder") as caught:
        DatabaseLock(tmp_path / "app.db").__enter__()
    assert caught.value.hint == "Move it away and start again."


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
def test_a_folder_in_the_place_of_a_file_of_sqlites_own_is_named(
    tmp_path: Path, suffix: str
) -> None:
    Path(tmp_path, f"app.db{suffix}").mkdir()
    with pytest.raises(DatabasePathProblem, match=f"{suffix} is a folder, in the place") as caught:
        DatabaseLock(tmp_path / "app.db").__enter__()
    assert caught.value.hint == "Move it away and start again."
