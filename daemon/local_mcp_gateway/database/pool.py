"""The connection pool while the gateway serves: one writer and a few readers on aiosqlite.

Every connection is a thread, so the pool is small and fixed. Reads go to the readers; each write is one
`BEGIN IMMEDIATE` transaction on the one writer, serialised by `_writing`. A cancelled aiosqlite `await`
keeps running in its thread, so the end of a transaction is shielded: the next one never finds it open.
Connections are only created in here, because one that is never closed keeps the process from exiting.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    nullcontext,
    suppress,
)
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import aiosqlite
import anyio

from local_mcp_gateway.database.connections import (
    BUSY_TIMEOUT_MS,
    SERVING_PRAGMAS,
    SIDE_FILES,
    reading,
    require_database_file,
)
from local_mcp_gateway.database.errors import raise_translated, translated_errors
from local_mcp_gateway.database.lock import distrust_file, leave_side_files
from local_mcp_gateway.database.recovery import ServedFile
from local_mcp_gateway.errors import DatabaseBusy, DatabaseGone, GatewayError, UsageProblem

if TYPE_CHECKING:
    from collections.abc import Iterator

Error = (sqlite3.Error, GatewayError)
"""What reading and writing raise, for callers that must not know the engine: a gateway error, or SQLite's
own error for a wrong statement."""
Row: TypeAlias = sqlite3.Row
"""One result row: a value for each column, by name."""
READERS = 2
CHECKPOINT_PAGES = 1000
"""SQLite's default."""
ROWS_TOGETHER = 50
"""Rows of one INSERT."""
Parameters = Iterable[object]


Files: TypeAlias = tuple[tuple[int, int] | None, ...]
"""Device and inode of the database, of its write-ahead log and of the log's index."""


class ConnectionPool:
    """The open database. Create one with `async with ConnectionPool.open(path)`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writing = asyncio.Lock()
        self._idle: asyncio.LifoQueue[aiosqlite.Connection] = asyncio.LifoQueue()
        self._writer: aiosqlite.Connection | None = None
        self._connections = AsyncExitStack()
        self._files: Files = (None, None, None)
        self._served: ServedFile | None = None
        self.others_out: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
        """Ends, for a block, what else this process has the file open in."""

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[ConnectionPool]:
        """Open the connections; close all of them on exit, whatever happens."""
        database = cls(path)
        require_database_file(path)
        try:
            await database._connect()
            yield database
        finally:
            await database._disconnect()

    async def fetch_all(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """Return every row of one SELECT, as of the last COMMIT."""
        reader = await self._idle.get()
        try:
            return list(await reader.execute_fetchall(sql, parameters))
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise_translated(error, self.path)
        finally:
            self._idle.put_nowait(reader)

    async def fetch_one(self, sql: str, parameters: Parameters = ()) -> Row | None:
        """Return the first row of one SELECT, or None."""
        rows = await self.fetch_all(sql, parameters)
        return rows[0] if rows else None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Hold the write lock from BEGIN IMMEDIATE to COMMIT; an exception rolls back.

        What is read inside stays true until it is written.
        """
        async with self._writing:
            writer = self._writer
            assert writer is not None, "the database is open"
            with translated_errors(self.path):
                try:
                    self._require_files()
                    await writer.execute("BEGIN IMMEDIATE")
                    yield Transaction(self.path, writer)
                    self._require_files()
                    with anyio.CancelScope(shield=True):
                        await writer.execute("COMMIT")
                    if self._served is not None:
                        self._served.is_overwritten()  # it compares with the log as it is now
                finally:
                    with anyio.CancelScope(shield=True):
                        if writer.in_transaction:
                            await writer.rollback()

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[ConnectionPool]:
        """Yield what reads one state of the database, whatever is committed meanwhile."""
        reader = await self._idle.get()
        try:
            with translated_errors(self.path):
                await reader.execute("BEGIN")
                yield Transaction(self.path, reader)
        finally:
            with anyio.CancelScope(shield=True):
                await reader.rollback()
            self._idle.put_nowait(reader)

    def gone(self) -> DatabaseGone | None:
        """Return a message if the path no longer names the files that are open here, or they are not ours."""
        for suffix, was, now in zip(
            ("", *SIDE_FILES), self._files, _identities(self.path), strict=False
        ):
            if was not in (None, now):
                what = "moved away or deleted" if now is None else "replaced by another file"
                return DatabaseGone(f"{self.path}{suffix} was {what} while this gateway serves it.")
        if self._served is not None and self._served.is_overwritten():
            return DatabaseGone(
                f"Another program has written over {self.path}, past SQLite, while this gateway serves it.",
                hint="Stop the gateway, restore a backup with `db restore latest` or a copy with"
                " `db restore FILE`, and start it again.",
            )
        return None

    def _require_files(self) -> None:
        if (gone := self.gone()) is not None:
            raise gone

    async def empty_wal(self) -> bool:
        """Checkpoint all that is committed into the database file, and truncate the WAL.

        False when another program reads an older snapshot for longer than the lock timeout.
        """
        async with self._writing, self.others_out():
            return await self._empty_wal()

    async def _empty_wal(self) -> bool:
        assert self._writer is not None, "the database is open"
        with anyio.CancelScope(shield=True), translated_errors(self.path):
            rows = await self._writer.execute_fetchall("PRAGMA wal_checkpoint(TRUNCATE)")
        return not next(iter(rows))[0]

    @asynccontextmanager
    async def leave_checkpoints(self) -> AsyncIterator[None]:
        """Leave all checkpoints to a program that replicates, for the block, from an empty WAL on.

        Between a checkpoint and the next commit the WAL begins again. A Litestream that did not make that
        checkpoint misses what it had not read, and replicates a state that never was. Raises DatabaseBusy.
        """
        try:
            async with self._writing:
                self._require_files()
                await self._checkpoint_every(0)
                if not await self._empty_wal():
                    raise DatabaseBusy(
                        f"Another program reads {self.path} for longer than {BUSY_TIMEOUT_MS // 1000} s.",
                        hint="Close that program; the gateway tries again within a minute.",
                    )
            yield
        finally:
            with anyio.CancelScope(shield=True), suppress(*Error):
                await self._checkpoint_every(CHECKPOINT_PAGES)

    async def _checkpoint_every(self, pages: int) -> None:
        """Checkpoint after a COMMIT once the WAL has that many pages; 0: never."""
        if self._writer is not None:  # else the file is released; a new connection has the default
            await self._writer.execute_fetchall(f"PRAGMA wal_autocheckpoint = {pages}")

    @asynccontextmanager
    async def pause_writes(self) -> AsyncIterator[None]:
        """Hold new writers back, after the running one, so that a migration can be applied.

        The connections stay open, and read something afterwards: that is when SQLite notices that
        the schema has changed. A statement that is prepared before may be checked against the old one.
        """
        async with self._writing:
            self._require_files()
            try:
                yield
            finally:
                with anyio.CancelScope(shield=True):
                    await self._notice_schema()

    @asynccontextmanager
    async def release_file(self) -> AsyncIterator[None]:
        """Close every connection for the block, so that the file can be replaced; reopen them after it."""
        async with self._writing:
            self._require_files()
            async with self.others_out():
                await self._disconnect()
                try:
                    yield
                finally:
                    with anyio.CancelScope(shield=True):
                        await self._connect()

    async def _notice_schema(self) -> None:
        assert self._writer is not None, "the database is open"
        readers = [await self._idle.get() for _ in range(READERS)]
        for connection in (self._writer, *readers):
            await connection.execute_fetchall("SELECT count(*) FROM sqlite_master")
        for reader in readers:
            self._idle.put_nowait(reader)

    async def _connect(self) -> None:
        connections = AsyncExitStack()
        self._connections = connections
        try:
            with translated_errors(self.path):
                self._writer = await self._open_one(connections, readonly=False)
                for _ in range(READERS):
                    self._idle.put_nowait(await self._open_one(connections, readonly=True))
                self._files = _identities(self.path)
                self._served = ServedFile(self.path)
        except BaseException:
            # A connection that is never closed keeps the process from exiting.
            with anyio.CancelScope(shield=True):
                self._writer = None
                while not self._idle.empty():
                    self._idle.get_nowait()
                await connections.aclose()
            raise

    async def _open_one(self, stack: AsyncExitStack, *, readonly: bool) -> aiosqlite.Connection:
        connecting = aiosqlite.connect(self.path, isolation_level=None)
        connection = await stack.enter_async_context(connecting)
        connection.row_factory = sqlite3.Row
        for pragma in SERVING_PRAGMAS:
            await connection.execute(pragma)
        if readonly:
            await connection.execute("PRAGMA query_only = ON")
        return connection

    async def _disconnect(self) -> None:
        """Close all connections; wait for a busy reader."""
        with anyio.CancelScope(shield=True):
            if self._writer is not None:
                self._writer = None
                for _ in range(READERS):
                    await self._idle.get()
            replaced = self._files[1] not in (None, now := _identities(self.path)[1])
            if self._served is not None and self._served.is_overwritten():
                distrust_file(self.path)
                leave_side_files(self.path)
            elif replaced and now is not None:
                leave_side_files(self.path)
            self._files, self._served = (None, None, None), None
            await self._connections.aclose()


def _identities(path: Path) -> Files:
    found: list[tuple[int, int] | None] = []
    for suffix in ("", *SIDE_FILES[:2]):
        try:
            status = os.stat(f"{path}{suffix}")  # noqa: PTH116  a path as text costs less
        except OSError:
            found.append(None)
        else:
            found.append((status.st_dev, status.st_ino))
    return tuple(found)


class Transaction(ConnectionPool):
    """One open transaction on its connection; its creator ends it."""

    def __init__(self, path: Path, writer: aiosqlite.Connection) -> None:
        super().__init__(path)
        self._connection = writer

    async def execute(self, sql: str, parameters: Parameters = ()) -> int:
        """Run one statement; return how many rows it inserted, updated or deleted."""
        async with self._connection.execute(sql, parameters) as cursor:
            return cursor.rowcount

    async def executemany(self, sql: str, rows: Iterable[Parameters]) -> None:
        """Run one statement for each row of parameters."""
        await self._connection.executemany(sql, rows)

    async def insert(self, table: str, columns: str, rows: Sequence[Sequence[Any]]) -> None:
        """Append rows, many with one statement: a statement for each takes twice as long."""
        one = f"({', '.join('?' * len(columns.split(',')))})"
        sql = f"INSERT INTO {table} ({columns}) VALUES {one}"
        whole = len(rows) - len(rows) % ROWS_TOGETHER
        if whole:
            packs = (rows[at : at + ROWS_TOGETHER] for at in range(0, whole, ROWS_TOGETHER))
            values = [tuple(chain.from_iterable(pack)) for pack in packs]
            await self.executemany(sql + f", {one}" * (ROWS_TOGETHER - 1), values)
        if whole < len(rows):
            await self.executemany(sql, rows[whole:])

    async def fetch_all(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """Return every row of one SELECT, with what this transaction has written."""
        return list(await self._connection.execute_fetchall(sql, parameters))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Yield itself: the open transaction."""
        yield self

    snapshot = transaction


@contextmanager
def named_gaps(path: Path) -> Iterator[None]:
    """Raise UsageProblem where a query of this program needs a table or column that is not there."""
    try:
        yield
    except (sqlite3.OperationalError, IndexError) as error:
        # a table is missing, or a column of a row
        if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) != sqlite3.SQLITE_ERROR:
            raise
        raise UsageProblem(
            f"{path} does not have all that this version of the program reads: {error}.",
            hint="`db status` shows what is pending; `db migrate` applies it.",
            gap=str(error),
        ) from None


class ReadOnlyDatabase(ConnectionPool):
    """A read-only view, empty if there is no file. Use `with ReadOnlyDatabase.open_at(path)`."""

    def __init__(self, path: Path, connection: sqlite3.Connection | None) -> None:
        super().__init__(path)
        self._connection = connection

    @classmethod
    @contextmanager
    def open_at(cls, path: Path) -> Iterator[ReadOnlyDatabase]:
        """Open it. Raises UsageProblem when its schema is older than the query needs."""
        if not path.exists():
            yield cls(path, None)
            return
        with reading(path) as connection:
            connection.row_factory = sqlite3.Row
            with named_gaps(path):
                yield cls(path, connection)

    async def fetch_all(self, sql: str, parameters: Parameters = ()) -> list[sqlite3.Row]:
        """Return every row of one SELECT. Blocks the event loop briefly, where nothing else runs."""
        if self._connection is None:
            return []
        return self._connection.execute(sql, tuple(parameters)).fetchall()
