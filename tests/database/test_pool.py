"""The serving database: one writer, readers at the same time, and a clean end after a cancelled write."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from local_mcp_gateway.database.connections import WAL_LIMIT_BYTES
from local_mcp_gateway.database.pool import ConnectionPool
from local_mcp_gateway.errors import DatabaseBusy, DatabasePathProblem, NoRoom


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[ConnectionPool]:
    async with ConnectionPool.open(tmp_path / "x.db") as database:
        async with database.transaction() as writer:
            await writer.execute("CREATE TABLE t (x INTEGER NOT NULL)")
        yield database


async def count(database: ConnectionPool) -> int:
    row = await database.fetch_one("SELECT count(*) FROM t")
    assert row is not None
    return int(row[0])


async def test_a_transaction_is_seen_once_it_is_committed(database: ConnectionPool) -> None:
    async with database.transaction() as writer:
        await writer.execute("INSERT INTO t VALUES (1)")
        assert await count(database) == 0
    assert await count(database) == 1


async def test_a_snapshot_stays_as_it_was_and_waits_for_nobody(database: ConnectionPool) -> None:
    async with database.snapshot() as seen:
        assert await count(seen) == 0
        async with database.transaction() as writer:
            await writer.execute("INSERT INTO t VALUES (1)")
        assert (await count(seen), await count(database)) == (0, 1)
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            await seen.fetch_all("SELECT * FROM missing")
    async with database.snapshot() as seen:
        assert await count(seen) == 1


async def test_a_cancelled_transaction_is_rolled_back_and_the_next_one_works(
    database: ConnectionPool,
) -> None:
    written = asyncio.Event()

    async def write() -> None:
        async with database.transaction() as writer:
            await writer.execute("INSERT INTO t VALUES (1)")
            written.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write())
    await written.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with database.transaction() as writer:
        await writer.execute("INSERT INTO t VALUES (2)")
    assert await count(database) == 1


async def test_a_reader_cannot_write(database: ConnectionPool) -> None:
    with pytest.raises(DatabasePathProblem, match="cannot be written"):
        await database.fetch_all("DELETE FROM t")


async def test_writers_wait_while_paused_and_readers_see_the_new_schema_afterwards(
    database: ConnectionPool,
) -> None:
    await database.fetch_all("SELECT * FROM t")

    async def write() -> None:
        async with database.transaction() as writer:
            await writer.execute("INSERT INTO t VALUES (1, 'new')")

    async with database.pause_writes():
        task = asyncio.create_task(write())
        with sqlite3.connect(database.path) as migration:
            migration.execute("ALTER TABLE t ADD COLUMN note TEXT")
        migration.close()
        assert not task.done()
    await task
    row = await database.fetch_one("SELECT * FROM t")
    assert row is not None
    assert row["note"] == "new"


async def test_the_file_can_be_replaced_while_closed(
    database: ConnectionPool, tmp_path: Path
) -> None:
    other = sqlite3.connect(tmp_path / "other.db")
    other.executescript("CREATE TABLE t (x INTEGER); INSERT INTO t VALUES (7), (8), (9);")
    other.close()
    async with database.release_file():
        for suffix in ("-wal", "-shm"):
            Path(f"{database.path}{suffix}").unlink(missing_ok=True)
        (tmp_path / "other.db").rename(database.path)
    assert await count(database) == 3


async def add(to: ConnectionPool, value: int) -> int:
    async with to.transaction() as writer:
        return await writer.execute("INSERT INTO t VALUES (?)", (value,))


async def test_what_is_called_within_a_transaction_is_part_of_it(database: ConnectionPool) -> None:
    async with database.transaction() as within:
        assert await add(within, 1) == 1
        assert await count(within) == 1
        assert await count(database) == 0
    assert await count(database) == 1


async def test_what_is_called_within_a_transaction_is_rolled_back_with_it(
    database: ConnectionPool,
) -> None:
    async def fail() -> None:
        async with database.transaction() as within:
            await add(within, 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await count(database) == 0


async def test_a_statement_tells_how_many_rows_it_changed(database: ConnectionPool) -> None:
    async with database.transaction() as writer:
        await writer.executemany("INSERT INTO t VALUES (?)", [(1,), (2,), (3,)])
        assert await writer.execute("UPDATE t SET x = 0 WHERE x > 1") == 2
        assert await writer.execute("DELETE FROM t WHERE x = 9") == 0


@pytest.mark.parametrize("count", [0, 1, 49, 50, 51, 100, 149])
async def test_many_rows_are_inserted_in_order(database: ConnectionPool, count: int) -> None:
    rows = [(number, f"note {number}") for number in range(1, count + 1)]
    async with database.transaction() as writer:
        await writer.execute("CREATE TABLE pairs (number INTEGER, text TEXT)")
        await writer.insert("pairs", "number, text", rows)
    found = await database.fetch_all("SELECT number, text FROM pairs ORDER BY rowid")
    assert [tuple(row) for row in found] == rows


async def test_a_full_disk_is_named_and_the_next_write_works(database: ConnectionPool) -> None:
    async with database.transaction() as writer:
        await writer.execute("PRAGMA max_page_count = 2")
    with pytest.raises(NoRoom, match="disk is full"):
        async with database.transaction() as writer:
            await writer.execute("INSERT INTO t SELECT randomblob(9000)")
    async with database.transaction() as writer:
        await writer.execute("INSERT INTO t VALUES (1)")
    assert await count(database) == 1


async def test_a_large_write_leaves_no_large_wal(database: ConnectionPool, tmp_path: Path) -> None:
    wal = tmp_path / "x.db-wal"
    async with database.transaction() as writer:
        await writer.executemany("INSERT INTO t VALUES (?)", [(b"x" * 4000,)] * 5000)
    large = wal.stat().st_size
    for number in range(2):  # the first begins the WAL anew, once it is in the database file
        async with database.transaction() as writer:
            await writer.execute("INSERT INTO t VALUES (?)", (number,))
    assert wal.stat().st_size <= WAL_LIMIT_BYTES < large


async def test_no_commit_checkpoints_while_another_program_is_to_do_it(
    database: ConnectionPool, tmp_path: Path
) -> None:
    file = tmp_path / "x.db"
    async with database.leave_checkpoints():
        assert Path(f"{file}-wal").stat().st_size == 0
        size = file.stat().st_size
        await write(database, pages=1500)
        await write(database, pages=1)
        assert file.stat().st_size == size
    await write(database, pages=1)
    assert file.stat().st_size > 1500 * 4096


async def write(database: ConnectionPool, *, pages: int) -> None:
    async with database.transaction() as writer:
        await writer.execute("CREATE TABLE IF NOT EXISTS large (x BLOB NOT NULL)")
        await writer.execute("INSERT INTO large VALUES (randomblob(?))", (pages * 4096,))


async def test_checkpoints_are_not_left_to_another_while_somebody_reads(
    database: ConnectionPool, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM t").fetchall()
        async with database.transaction() as writer:
            await writer.execute("PRAGMA busy_timeout = 0")
            await writer.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(DatabaseBusy, match="Another program reads"):
            async with database.leave_checkpoints():
                pass
    await write(database, pages=1500)
    assert (tmp_path / "x.db").stat().st_size > 1500 * 4096
