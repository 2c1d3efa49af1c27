"""Transactions on a database file: take the write lock, commit, and prove that the commit is on disk.

SQLite hides an EIO from the folder's fsync, and a disk may claim a write that it did not make. So a
COMMIT here is followed by a read through a fresh connection, and `make_durable` flushes file and folder
itself and checks what it reads back before success is reported.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from local_mcp_gateway.database.connections import (
    begin,
    is_empty,
    open_immutable,
    open_migration,
    open_scratch,
    reading,
)
from local_mcp_gateway.database.errors import ENGINE_ERRORS, raise_translated, to_gateway_error
from local_mcp_gateway.database.integrity import FULL_CHECK_BYTES, check_sound
from local_mcp_gateway.database.run import UNWATCHED, Run
from local_mcp_gateway.errors import Damaged, DiskProblem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local_mcp_gateway.database.connections import Connection
    from local_mcp_gateway.errors import GatewayError

EMPTYING_MS = 100
"""Longest wait for readers, in milliseconds, to empty the WAL after a COMMIT."""


@contextmanager
def write_lock(path: Path, *, foreign_keys: bool = False) -> Iterator[Connection]:
    """Open the live database and hold SQLite's write lock; roll back whatever was not committed.

    Keeps out programs that do not know our lock file, too; waits 5 s for one that is writing. A file
    that was made for this is removed again if nothing was committed to it.
    """
    made = not path.exists()
    with ExitStack() as held:
        try:
            live = held.enter_context(closing(open_migration(path)))
            if made:
                held.callback(_remove_unused, live, path)
            begin(live, foreign_keys=foreign_keys)
        except ENGINE_ERRORS as error:
            raise_translated(error, path)
        held.callback(roll_back, live)
        yield live


def _remove_unused(connection: Connection, path: Path) -> None:
    """Remove a file that has stayed empty, unless another program has opened it since."""
    with suppress(sqlite3.Error, OSError):
        if is_empty(connection):
            connection.execute("PRAGMA journal_mode=DELETE")  # fails while anybody else has it open
            connection.execute("BEGIN EXCLUSIVE")
            if is_empty(connection):
                path.unlink()


def roll_back(connection: Connection) -> None:
    """Roll back; if somebody closed the connection, that already did it."""
    with suppress(sqlite3.ProgrammingError):
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def commit_and_compare(connection: Connection, path: Path) -> None:
    """COMMIT, and raise Damaged unless a fresh connection reads the pages that were committed.

    A lost write may leave an older page in its place, which no check of the file's structure can find.
    The comparison is skipped if another program has written since, or if `pages` is None. No signal stops
    the work.
    """
    connection.set_progress_handler(None, 0)
    written = _commit(connection)
    _empty_log(connection)
    if written is None:
        return
    with reading(path, locked=True) as reader:
        found = pages(reader)
        if data_version(connection) == written.version:
            _require_same(found, written, path, Damaged)


def _empty_log(connection: Connection) -> None:
    """Empty the WAL, unless somebody reads it for longer; with FULL it is durable anyway.

    A program that replicates the database never lets go of it, and would cost the whole busy timeout.
    """
    (usual_ms,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute(f"PRAGMA busy_timeout = {EMPTYING_MS}")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.execute(f"PRAGMA busy_timeout = {usual_ms}")


def empty_log(path: Path) -> bool:
    """Checkpoint all that is committed into the file, and truncate the WAL; False while another program reads."""
    with reading(path, locked=True) as reader:
        return not reader.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]


def _commit(connection: Connection) -> Pages | None:
    """COMMIT; return the pages that were committed, as `pages` does."""
    # Full-text indexes keep their last rows in memory until COMMIT, or until a savepoint.
    connection.execute("SAVEPOINT flush")
    connection.execute("RELEASE flush")
    written = pages(connection)
    connection.execute("COMMIT")
    return written


@contextmanager
def kept_file(path: Path) -> Iterator[Connection]:
    """Open a file that nobody else uses, and that is to take a database's place.

    At the end it raises DiskProblem unless a fresh connection reads what the block has committed. That is
    skipped if `pages` is None.
    """
    with closing(open_scratch(path)) as connection:
        mode, version = _journal_mode(connection), data_version(connection)
        yield connection
        with reading(path, locked=True) as reader:
            found = pages(reader)
        written = pages(connection)
        if data_version(connection) != version and _journal_mode(connection) == mode:
            found = None  # the first page was lost, which counts commits: so it seems to be another program's
        _require_same(found, written, path, DiskProblem)


def _require_same(
    found: Pages | None, written: Pages | None, path: Path, lost: type[GatewayError]
) -> None:
    """Raise an error of this kind unless a fresh connection has found the pages that were written."""
    if written and not (found and found.agree(written)):
        raise lost(f"{path} does not read back as written: a write was lost.")


@contextmanager
def outside_transaction(connection: Connection) -> Iterator[None]:
    """Leave the caller's transaction, in which nothing has happened, and begin another afterwards."""
    connection.execute("ROLLBACK")
    yield
    connection.execute("BEGIN IMMEDIATE")


def make_durable(path: Path, *, serving: bool) -> None:
    """Flush the database's file and its folder; raises what the disk reports.

    `serving`: this process has the file open, and closing another descriptor of it would drop SQLite's
    locks. Then SQLite's own flush at COMMIT has to do for the file.
    """
    try:
        if not serving:
            flush(path)
        flush(path.resolve().parent)
    except OSError as error:
        problem = to_gateway_error(error, path, doing="flush", otherwise=DiskProblem) or error
        if isinstance(problem, DiskProblem):
            problem.hint = "The migration may not last: repair the disk, then see `db status`."
        raise problem from error


def flush(path: Path) -> None:
    """Wait until a file's bytes, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def staged_transaction(
    staged: Path,
    *,
    like: Path | None = None,
    foreign_keys: bool = False,
    full: bool = False,
    run: Run = UNWATCHED,
) -> Iterator[Connection]:
    """Write a file that will replace a database, in one transaction.

    Afterwards it is one whole file, flushed and checked (in `full`, or quickly if it is large), in its own
    journal mode or that of the database `like`. Nobody else has it open. Raises DiskProblem if it does not
    read back as written.
    """
    with closing(open_migration(staged)) as connection:
        mode = _journal_mode(connection)
        if like is not None and like.exists():
            with reading(like, locked=True) as other:
                mode = _journal_mode(other)
        # Closing hides the errors of a checkpoint; a commit with a rollback journal does not.
        connection.execute("PRAGMA journal_mode=DELETE").fetchall()
        begin(connection, foreign_keys=foreign_keys)
        yield connection
        written = _commit(connection)
        connection.execute(f"PRAGMA journal_mode={mode}").fetchall()
    flush(staged)
    with closing(open_immutable(staged)) as reader:
        try:
            full = full or staged.stat().st_size <= FULL_CHECK_BYTES
            check_sound(reader, staged, full=full, run=run)
        except Damaged as error:
            raise DiskProblem(
                f"{staged} does not read back as written: {error.message}", path=str(staged)
            ) from error
        _require_same(pages(reader), written, staged, DiskProblem)


def _journal_mode(connection: Connection) -> str:
    return str(connection.execute("PRAGMA journal_mode").fetchone()[0])


def database_bytes(database: Path) -> int:
    """Return the size of a database including its WAL; 0 if there is none."""
    total = 0
    real = database.resolve()
    for path in (real, real.with_name(f"{real.name}-wal")):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


COMPARED_BYTES = 16 << 20
"""Maximum size for comparing pages: some 10 ms, and memory for it twice."""
_HEADER_BYTES = 100
"""Of a database file (file format §1.3)."""
_BETWEEN_COUNTERS = (slice(0, 18), slice(20, 24), slice(28, 92))
"""The header bytes that say how and when the file was written (journal mode, change counter,
valid-for, SQLite's version) are left out: COMMIT itself changes those."""


class Pages(NamedTuple):
    """What a connection sees, uncommitted changes included."""

    content: bytes
    version: int
    """Changes when another connection has written (`PRAGMA data_version`)."""

    def agree(self, other: Pages) -> bool:
        """Return whether both connections saw the same pages, without copying them once more."""
        return (
            len(self.content) == len(other.content)
            and self.content.endswith(memoryview(other.content)[_HEADER_BYTES:])
            and all(self.content[part] == other.content[part] for part in _BETWEEN_COUNTERS)
        )


def pages(connection: sqlite3.Connection) -> Pages | None:
    """Read every page through the connection's own cache.

    None where COMMIT may move pages, and for more than `COMPARED_BYTES`: it needs memory of that size.
    """
    count, size, moving = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "page_size", "auto_vacuum")
    )
    if moving or count * size > COMPARED_BYTES:
        return None
    content = connection.serialize()
    return Pages(content, data_version(connection))


def data_version(connection: sqlite3.Connection) -> int:
    """Return a number that changes whenever another connection has written."""
    (version,) = connection.execute("PRAGMA data_version").fetchone()
    return int(version)
