"""A log that was written for another file is refused; one that a crash left with its file never is."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path

import pytest

from local_mcp_gateway.database.connections import open_reader, require_own_logs
from local_mcp_gateway.database.lock import DatabaseLock
from local_mcp_gateway.database.recovery import ServedFile
from local_mcp_gateway.errors import ForeignLog
from tests.harness import locks_on

AN_HOUR_NS = 3_600_000_000_000
_SETUP = """
import os, sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute("PRAGMA cache_size=10")
def fill(rows):
    c.execute("BEGIN")
    c.executemany("INSERT INTO n (v) VALUES (?)", [("x" * 300,)] * rows)
    c.execute("COMMIT")
"""
IN_WAL = {
    "growing": "fill(50)",
    "in place": "c.execute('UPDATE n SET v = upper(v) WHERE id < 5')",
    "checkpointed": "fill(50); c.execute('PRAGMA wal_checkpoint').fetchall()",
    "checkpointed, then more": "fill(50); c.execute('PRAGMA wal_checkpoint').fetchall(); fill(3)",
    "several generations": """for _ in range(4):
    fill(50); c.execute('PRAGMA wal_checkpoint(RESTART)').fetchall()
fill(2)""",
    "uncommitted": "c.execute('BEGIN'); c.executemany('INSERT INTO n (v) VALUES (?)', [('y' * 300,)] * 500)",
    "with a reader": """r = sqlite3.connect(sys.argv[1]); r.execute('BEGIN'); r.execute('SELECT * FROM n').fetchone()
fill(50); c.execute('PRAGMA wal_checkpoint').fetchall()""",
    "from two connections": """d = sqlite3.connect(sys.argv[1], isolation_level=None)
for _ in range(3):
    fill(9); d.execute("INSERT INTO n (v) VALUES ('d')"); fill(9)
    c.execute('PRAGMA wal_checkpoint(RESTART)').fetchall()
fill(1)""",
}
IN_ROLLBACK = {
    "spilled": "c.execute('BEGIN'); c.executemany('INSERT INTO n (v) VALUES (?)', [('y' * 300,)] * 900)",
    "rewriting": "c.execute('BEGIN'); c.execute('UPDATE n SET v = upper(v)')",
    "not begun": "c.execute('BEGIN'); c.execute('DELETE FROM n WHERE id = 3')",
}


def make(path: Path, mode: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA journal_mode={mode}")
        connection.execute("CREATE TABLE n (id INTEGER PRIMARY KEY, v TEXT)")
        connection.execute("BEGIN")  # or each row is a commit, and waits for the disk
        connection.executemany("INSERT INTO n (v) VALUES (?)", [("first" * 50,)] * 200)
        connection.execute("COMMIT")


def crash(path: Path, script: str) -> None:
    """Run a program on the database that ends as if it was killed."""
    code = f"{_SETUP}\n{script}\nos._exit(9)"
    done = subprocess.run([sys.executable, "-c", code, path], check=False)
    assert done.returncode == 9


def accepted(path: Path) -> None:
    """Have a guard accept the file, and stop cleanly."""
    with DatabaseLock(path) as lock:
        lock.accept_file()
        lock.record_clean_stop()


def refused(path: Path) -> None:
    before = path.read_bytes()
    for _ in range(2):
        with pytest.raises(ForeignLog, match="another file"):
            require_own_logs(path)
        with pytest.raises(ForeignLog):
            open_reader(path)
    assert path.read_bytes() == before


@pytest.fixture(params=["known to a guard", "unknown"])
def known(request: pytest.FixtureRequest) -> Callable[[Path], None]:
    return accepted if request.param == "known to a guard" else lambda _: None


@pytest.mark.parametrize("script", IN_WAL.values(), ids=IN_WAL)
def test_a_write_ahead_log_that_a_crash_left_is_its_own(
    tmp_path: Path, script: str, known: Callable[[Path], None]
) -> None:
    path = tmp_path / "x.db"
    make(path, "WAL")
    known(path)
    crash(path, script)
    assert path.with_name("x.db-wal").stat().st_size
    require_own_logs(path)
    shutil.copytree(tmp_path, tmp_path / "moved")  # a folder that is copied as a whole
    require_own_logs(tmp_path / "moved" / "x.db")


@pytest.mark.parametrize("script", IN_ROLLBACK.values(), ids=IN_ROLLBACK)
def test_a_rollback_journal_that_a_crash_left_is_its_own(
    tmp_path: Path, script: str, known: Callable[[Path], None]
) -> None:
    path = tmp_path / "x.db"
    make(path, "DELETE")
    known(path)
    crash(path, script)
    assert path.with_name("x.db-journal").stat().st_size
    require_own_logs(path)


def test_the_journal_of_a_first_transaction_is_its_own(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    crash(
        path,
        "c.execute('BEGIN'); c.execute('CREATE TABLE n (id INTEGER PRIMARY KEY, v)')\n"
        "c.executemany('INSERT INTO n (v) VALUES (?)', [('y' * 300,)] * 900)",
    )
    assert path.stat().st_size
    require_own_logs(path)


def backup_of(path: Path) -> Path:
    """Return a copy made through SQLite, in WAL mode as the original."""
    copy = path.with_name("copy.db")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


def plain_copy_of(path: Path) -> Path:
    return Path(shutil.copyfile(path, path.with_name("copy.db")))


def cp_over(copy: Path, path: Path) -> None:
    path.write_bytes(copy.read_bytes())


def move_over(copy: Path, path: Path) -> None:
    copy.rename(path)


def aged(path: Path) -> None:
    """Let everything next to the copy be an hour old: nobody puts a file in place within seconds."""
    for file in path.parent.iterdir():
        then = file.stat().st_mtime_ns - AN_HOUR_NS
        os.utime(file, ns=(then, then))


@pytest.mark.parametrize("put", [cp_over, move_over])
@pytest.mark.parametrize("copied", [backup_of, plain_copy_of])
@pytest.mark.parametrize("script", ["growing", "in place", "several generations"])
def test_a_copy_in_the_place_of_a_database_is_not_written_over_by_the_old_log(
    tmp_path: Path,
    script: str,
    copied: Callable[[Path], Path],
    put: Callable[[Path, Path], None],
) -> None:
    path = tmp_path / "x.db"
    make(path, "WAL")
    accepted(path)
    copy = copied(path)
    with closing(sqlite3.connect(path)) as connection, connection:  # what the copy lacks
        connection.execute("INSERT INTO n (v) VALUES ('later')")
    crash(path, IN_WAL[script])
    aged(path)
    put(copy, path)
    refused(path)


def test_a_copy_with_a_rollback_journal_never_fits_a_write_ahead_log(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    make(path, "WAL")
    crash(path, IN_WAL["growing"])
    path.unlink()
    make(path.with_name("other.db"), "DELETE")
    path.with_name("other.db").rename(path)
    refused(path)


@pytest.mark.parametrize("put", [cp_over, move_over])
@pytest.mark.parametrize("copied", [backup_of, plain_copy_of])
def test_a_copy_is_not_rolled_back_by_the_old_journal(
    tmp_path: Path, copied: Callable[[Path], Path], put: Callable[[Path, Path], None]
) -> None:
    path = tmp_path / "x.db"
    make(path, "DELETE")
    accepted(path)
    copy = copied(path)
    for _ in range(3):
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("INSERT INTO n (v) VALUES ('later')")
    crash(path, IN_ROLLBACK["spilled"])
    put(copy, path)
    refused(path)


def test_the_log_of_a_database_that_is_open_elsewhere_is_not_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    make(path, "WAL")
    crash(path, IN_WAL["growing"])
    other = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"{_SETUP}\nc.execute('SELECT count(*) FROM n').fetchone()\nprint(flush=True)\ninput()",
            path,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None
    other.stdout.readline()
    log = path.with_name("x.db-wal")
    then = log.stat().st_mtime_ns - AN_HOUR_NS
    os.utime(log, ns=(then, then))
    require_own_logs(path)
    other.communicate("\n")


BUSY = """
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute("PRAGMA wal_autocheckpoint=5")
c.execute("PRAGMA synchronous=OFF")
other = sqlite3.connect(":memory:")
other.executescript("CREATE TABLE o (x); INSERT INTO o VALUES (1);")
for step in sys.stdin:
    number = int(step)
    if number % 10 == 1: c.execute(f"CREATE TABLE t{number} (x)")
    elif number % 10 == 2: c.execute("VACUUM")
    elif number % 10 == 3: c.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    elif number % 10 == 4: c.execute(f"PRAGMA user_version={number}")
    elif number % 10 == 5: c.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
    elif number % 40 == 27: other.backup(c)
    elif number % 40 == 37: c.executescript("DROP TABLE IF EXISTS n; CREATE TABLE n (id INTEGER PRIMARY KEY, v)")
    else: c.executescript("BEGIN; CREATE TABLE IF NOT EXISTS n (id INTEGER PRIMARY KEY, v);"
                          "INSERT INTO n (v) VALUES (hex(randomblob(9000))); COMMIT")
    print(number, flush=True)
"""


def test_whatever_other_programs_write_through_sqlite_is_no_false_alarm(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    make(path, "WAL")
    command = [sys.executable, "-c", BUSY, str(path)]
    with (
        DatabaseLock(path),
        closing(sqlite3.connect(path, isolation_level=None)) as ours,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        ) as other,
    ):
        ours.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        served = ServedFile(path)
        assert other.stdin is not None
        assert other.stdout is not None
        for number in range(120):
            print(number, file=other.stdin, flush=True)
            assert not served.is_overwritten(), number  # in the middle of it
            assert other.stdout.readline() == f"{number}\n"
            if number % 3:  # sometimes only some steps later
                assert not served.is_overwritten(), number
            if number % 7 == 0:
                ours.execute("CREATE TABLE IF NOT EXISTS ours (x)")
                ours.execute("INSERT INTO ours VALUES (1)")
                assert not served.is_overwritten(), number
        other.stdin.close()
        other.wait()
        assert not served.is_overwritten()


@pytest.mark.parametrize("copied", [backup_of, plain_copy_of])
def test_a_file_that_was_written_over_in_place_is_noticed(
    tmp_path: Path, copied: Callable[[Path], Path]
) -> None:
    path = tmp_path / "x.db"
    make(path, "WAL")
    copy = copied(path)
    with DatabaseLock(path), closing(sqlite3.connect(path, isolation_level=None)) as ours:
        ours.execute("CREATE TABLE later (x)")
        ours.execute("PRAGMA wal_checkpoint").fetchall()
        served = ServedFile(path)
        assert not served.is_overwritten()
        cp_over(copy, path)
        assert served.is_overwritten()


@pytest.mark.parametrize("holder", [True, False], ids=["with the lock", "without it"])
def test_a_reader_keeps_the_locks_of_what_this_process_has_open(
    tmp_path: Path, holder: bool
) -> None:
    """The kernel drops them all when any descriptor of the file is closed."""
    path = tmp_path / "x.db"
    make(path, "WAL")
    with (
        DatabaseLock(path) if holder else nullcontext(),
        closing(sqlite3.connect(path, isolation_level=None)) as served,
    ):
        served.execute("INSERT INTO n (v) VALUES ('y')")
        before = locks_on(path, os.getpid())
        assert before
        open_reader(path).close()
        assert locks_on(path, os.getpid()) == before
