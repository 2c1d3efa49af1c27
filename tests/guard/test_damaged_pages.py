"""Every page of a small database damaged in four ways: refused with a way out that works, or unharmed.

The damage is silent: size and times are those of the last clean stop. What is compared with is a plain
replay by SQLite on the damaged file, which reads tables and no index: a changed letter in a row is
damage that nothing can find, and the guard must not make more of it.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from local_mcp_gateway.backup import find_backup, list_backups, verify_backup
from local_mcp_gateway.errors import Damaged, Exit, GatewayError, HistoryRefused, NotADatabase
from local_mcp_gateway.guard import guarded
from local_mcp_gateway.guard.commands import back_up_now, rebuild_indexes, restore_guarded
from local_mcp_gateway.guard.context import GuardContext
from tests.harness import MigrationFolder

PAGE = 4096
MARK = "UPDATE words SET word = 'marked' WHERE word = 'word-0777'"
Count = Callable[..., None]


def zeroed(data: bytearray, at: int, _chance: random.Random) -> None:
    data[at : at + PAGE] = bytes(PAGE)


def scribbled(data: bytearray, at: int, chance: random.Random) -> None:
    start = at + chance.randrange(PAGE - 64)
    data[start : start + 64] = chance.randbytes(64)


def stale(data: bytearray, at: int, _chance: random.Random) -> None:
    """Put another page in its place, as a write that went astray does."""
    other = (at + PAGE) % len(data)
    data[at : at + PAGE] = data[other : other + PAGE]


def one_bit(data: bytearray, at: int, chance: random.Random) -> None:
    """Flip a bit in the last third of the page, where its cells are."""
    data[at + chance.randrange(PAGE * 2 // 3, PAGE)] ^= 1 << chance.randrange(8)


WAYS = (zeroed, scribbled, stale, one_bit)


class Case(NamedTuple):
    mode: str
    pending: bool
    page: int
    way: Callable[[bytearray, int, random.Random], None]

    def __str__(self) -> str:
        what = "pending" if self.pending else "current"
        return f"{self.mode}, {what}, page {self.page}, {self.way.__name__}"


@pytest.fixture(scope="module", params=["DELETE", "WAL"])
def template(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a database of every kind of page, stopped cleanly, and a backup of it."""
    root = tmp_path_factory.mktemp(str(request.param))
    folder = MigrationFolder(root / "m")
    folder.add("words", "CREATE TABLE words (id INTEGER PRIMARY KEY, word TEXT)")
    folder.add(
        "filled",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200)"
        " INSERT INTO words SELECT i, printf('word-%04d', i) FROM n",
        "CREATE UNIQUE INDEX by_word ON words (word)",
        "CREATE TABLE large (id INTEGER PRIMARY KEY, body TEXT)",
        "INSERT INTO large VALUES (1, printf('%.12000c', 'x')), (2, printf('%.9000c', 'y'))",
        "CREATE TABLE gone (body TEXT)",
        "INSERT INTO gone SELECT printf('%.3000c', 'z') FROM words LIMIT 6",
        "DROP TABLE gone",
    )
    database = root / "x.db"
    with guarded(database, folder.path):
        pass
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(f"PRAGMA journal_mode={request.param}")
    with guarded(database, folder.path):
        pass
    back_up_now(GuardContext(database, folder.path))
    return root


def pages_of(template: Path) -> int:
    return (template / "x.db").stat().st_size // PAGE


@contextmanager
def damaged(template: Path, case: Case, root: Path) -> Iterator[GuardContext]:
    shutil.copytree(template, root)
    database = root / "x.db"
    if case.pending:
        MigrationFolder(root / "m").add("mark", MARK, "ALTER TABLE words ADD COLUMN more TEXT")
    data = bytearray(database.read_bytes())
    case.way(data, (case.page - 1) * PAGE, random.Random(str(case)))
    then = (template / "x.db").stat()
    database.write_bytes(data)
    os.utime(database, ns=(then.st_atime_ns, then.st_mtime_ns))
    yield GuardContext(database, root / "m")
    shutil.rmtree(root)


def rows(database: Path) -> list[object]:
    """Return the rows of the tables, read without the help of an index; raises sqlite3.Error."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        connection.text_factory = bytes
        return [
            connection.execute(f"SELECT * FROM {table} NOT INDEXED").fetchall()
            for table in ("words", "large")
        ]


def replayed(database: Path) -> list[object] | None:
    """Return the rows after what is pending, applied by SQLite alone without an index."""
    copy = database.with_name("replayed.db")
    shutil.copyfile(database, copy)
    try:
        with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
            connection.execute("DROP INDEX by_word")
            connection.execute(MARK)
            connection.execute("ALTER TABLE words ADD COLUMN more TEXT")
            connection.execute("CREATE UNIQUE INDEX by_word ON words (word)")
        return rows(copy)
    except (sqlite3.Error, UnicodeDecodeError):  # of the message
        return None
    finally:
        copy.unlink()


def start(context: GuardContext) -> GatewayError | None:
    try:
        with guarded(context.database, context.migrations):
            return None
    except GatewayError as error:
        return error


def sound(database: Path) -> bool:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def check_backups(context: GuardContext) -> None:
    for backup in list_backups(context.database):
        verify_backup(backup)


def way_out(context: GuardContext, refused: GatewayError, template: Path) -> str:
    """Do what the hint says; return which way that was."""
    if "`db repair --reindex`" in refused.hint:
        try:
            rebuild_indexes(context)
        except Damaged as error:  # the table is at fault
            refused = error
        else:
            return "reindexed"
    named = re.search(r"db restore (x-\S+)`", refused.hint)
    assert named, refused.hint
    restore_guarded(context, find_backup(context.database, named[1]))
    assert rows(context.database) == rows(template / "x.db")
    return "restored"


def prove(template: Path, case: Case, root: Path) -> str:
    """Start on the damaged file; return what came of it, in a word."""
    with damaged(template, case, root) as context:
        database = context.database
        before, expected = database.read_bytes(), replayed(database)
        refused = start(context)
        if refused is None and not case.pending:
            assert database.read_bytes() == before, case
            check_made_by_hand(context)
            return "left alone"
        check_backups(context)
        if refused is None:
            assert sound(database), case
            assert rows(database) == expected, case
            return "applied, unharmed"
        assert database.read_bytes() == before, case
        assert "committed" not in refused.message, case
        if refused.exit_code == Exit.REFUSED:
            return "the history or the schema is not what it was"
        assert refused.exit_code == Exit.DAMAGED, (case, refused)
        way = way_out(context, refused, template)
        check_backups(context)
        left = start(context)
        assert left is None, (case, left)
        assert sound(database), case
        if way == "reindexed" and case.pending:
            assert rows(database) == expected, case
        return way


def check_made_by_hand(context: GuardContext) -> None:
    """Back the damaged database up on request: what is listed then is sound."""
    with suppress(Damaged, NotADatabase, HistoryRefused):
        back_up_now(context)
    check_backups(context)


def every_case(template: Path) -> list[Case]:
    mode = template.name.rstrip("0123456789")
    return [
        Case(mode, pending, page, way)
        for pending in (True, False)
        for page in range(1, pages_of(template) + 1)
        for way in WAYS
    ]


def test_a_sample_of_damaged_pages_is_refused_or_unharmed(
    template: Path, tmp_path: Path, count: Count
) -> None:
    cases = every_case(template)
    for case in cases[:4] + random.Random(12).sample(cases[4:], 16):
        count("damaged pages", prove(template, case, tmp_path / "case"), str(case))


@pytest.mark.nightly
def test_every_damaged_page_is_refused_or_unharmed(
    template: Path, tmp_path: Path, count: Count
) -> None:
    for case in every_case(template):
        count("damaged pages, all", prove(template, case, tmp_path / "case"), str(case))
