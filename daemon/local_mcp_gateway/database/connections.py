"""Open SQLite connections with the right settings; no other module sets them.

Why these values: with DELETE + FULL (SQLite's default) and with WAL + NORMAL a committed transaction
can be lost in a power cut; WAL + FULL and anything + EXTRA survive it. Foreign keys are off while
migrations run, because a rebuild drops the old table and its cascades would delete the children. The
setting is a no-op inside a transaction, so it is made before BEGIN and read back.

The functions that open a connection raise what SQLite raises. The context managers that hold one open
translate it: `reading` here, `write_lock` in `transactions`.

All connections have `isolation_level=None`: Python must not begin or commit anything by itself.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from urllib.parse import quote

from local_mcp_gateway.database.errors import require_database_file, translated_errors
from local_mcp_gateway.database.lock import hold_new_file
from local_mcp_gateway.errors import DatabasePathProblem

if TYPE_CHECKING:
    from collections.abc import Iterator

Connection: TypeAlias = sqlite3.Connection
"""The type that other packages pass on without knowing the engine."""

BUSY_TIMEOUT_MS = 5_000
SQLITE_VERSION = sqlite3.sqlite_version
"""For the log: the version that the interpreter has."""
SERVING_PRAGMAS = (
    f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}",
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    # Deleted and encrypted values are overwritten, so that no page keeps them for the next backup.
    "PRAGMA secure_delete=ON",
)
"""For the connections that serve, in this order."""

_EXTRA = 3
_WAL_PAUSE_S = 0.02


def has_content(path: Path) -> bool:
    """Return whether the database exists and is not empty; raises DatabasePathProblem for no file."""
    require_database_file(path)
    return path.exists() and path.stat().st_size > 0


def open_migration(path: Path) -> sqlite3.Connection:
    """Open (or create, 0600, in WAL) the live database to be migrated: durable, foreign keys off.

    The journal mode of a database that exists is its owner's and stays as it is: nothing is written
    before the migration's own transaction. EXTRA survives a power cut in every mode (in WAL it is
    FULL). The caller holds the `DatabaseLock`: switching a new file to WAL would race otherwise.
    """
    new = not has_content(path)
    if new:
        _create_private(path)
    connection = _connect(f"{uri(path)}?mode=rw")
    try:
        if new:
            _switch_to_wal(connection)
        survive_power_cut(connection)
        set_foreign_keys(connection, on=False)
    except BaseException:
        connection.close()
        raise
    return connection


def survive_power_cut(connection: sqlite3.Connection) -> None:
    """Make COMMIT survive a power cut, and read the setting back; call it outside a transaction."""
    connection.execute("PRAGMA synchronous=EXTRA")
    (synchronous,) = connection.execute("PRAGMA synchronous").fetchone()
    if synchronous != _EXTRA:
        raise RuntimeError(f"PRAGMA synchronous is {synchronous}, set inside a transaction")


def open_reader(path: Path, *, locked: bool = False) -> sqlite3.Connection:
    """Open the database read-only; never create it, never wait for a writer in WAL.

    A caller that holds the `DatabaseLock` passes `locked`: its handle may write, so that closing it
    removes SQLite's `-wal` and `-shm` files; a read-only handle has to leave them.
    """
    require_database_file(path)
    if not path.exists():
        raise DatabasePathProblem(f"There is no database at {path}.", path=str(path))
    if locked:
        return open_checked(f"{uri(path)}?mode=rw")
    try:
        return open_checked(f"{uri(path)}?mode=ro")
    except sqlite3.OperationalError as error:
        # A hot journal or a WAL without its index needs a recovery that a read-only handle may
        # not do. Any reader does it at its first read, so allow it here, then only read.
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
            raise
        return open_checked(f"{uri(path)}?mode=rw")


@contextmanager
def reading(path: Path, *, locked: bool = False) -> Iterator[sqlite3.Connection]:
    """Open the database for reading in a block, as `open_reader` does.

    Damage that SQLite finds inside the block (any page may be damaged) is raised as Damaged.
    """
    with translated_errors(path), closing(open_reader(path, locked=locked)) as connection:
        yield connection


def open_immutable(path: Path) -> sqlite3.Connection:
    """Open a file that nothing writes to, read-only, without locks or files beside it."""
    return _connect(f"{uri(path)}?mode=ro&immutable=1")


def open_scratch(path: Path | None = None) -> sqlite3.Connection:
    """Open a copy that may be lost (or a database in memory): fast, foreign keys off."""
    connection = _connect(":memory:" if path is None else f"{uri(path)}?mode=rw")
    connection.execute("PRAGMA journal_mode=MEMORY")
    connection.execute("PRAGMA synchronous=OFF")
    set_foreign_keys(connection, on=False)
    return connection


def set_foreign_keys(connection: sqlite3.Connection, *, on: bool) -> None:
    """Switch the enforcement of foreign keys, and read it back: inside a transaction it is ignored."""
    connection.execute(f"PRAGMA foreign_keys={'ON' if on else 'OFF'}")
    (actual,) = connection.execute("PRAGMA foreign_keys").fetchone()
    if bool(actual) != on:
        raise RuntimeError(
            "PRAGMA foreign_keys was set inside a transaction, where it has no effect"
        )


def table_names(connection: sqlite3.Connection) -> frozenset[str]:
    """Return the names of all tables."""
    rows = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
    return frozenset(name for (name,) in rows)


def is_empty(connection: sqlite3.Connection) -> bool:
    """Return whether the database has no objects, not even a table."""
    return connection.execute("SELECT 1 FROM sqlite_schema").fetchone() is None


def _connect(target: str) -> sqlite3.Connection:
    return sqlite3.connect(
        target,
        timeout=BUSY_TIMEOUT_MS / 1000,
        isolation_level=None,
        check_same_thread=False,  # the guard works in a worker thread and is closed by another
        cached_statements=16,  # a migration's statement is run once
        uri=True,
    )


def open_checked(target: str) -> sqlite3.Connection:
    """Connect and read the schema once: SQLite opens the file only at its first read."""
    connection = _connect(target)
    try:
        connection.execute("PRAGMA query_only=ON")
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL, retrying while another program reads: this PRAGMA does not wait by itself."""
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while mode != "wal":
        try:
            (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
            if mode != "wal":
                raise DatabasePathProblem(
                    "The database's file system does not support SQLite's write-ahead log.",
                    hint="Put the database on a local disk.",
                )
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(_WAL_PAUSE_S)


def _create_private(path: Path) -> None:
    """Create the empty file with access for its owner only; SQLite gives its journals the same mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        hold_new_file(path)
    except FileNotFoundError:
        raise DatabasePathProblem(
            f"The folder {path.parent} of the database does not exist."
        ) from None
    except OSError as error:
        raise DatabasePathProblem(f"{path} cannot be created: {error.strerror}.") from error


def uri(path: Path) -> str:
    """Return the file as a `file:` URI, for `?mode=` to be added."""
    return "file:" + quote(os.fsencode(path.absolute()))


class Engine(NamedTuple):
    """The SQLite of this interpreter, and what is wrong with it."""

    message: str
    hint: str = ""
    """What to do if it cannot be used."""


def examine_engine() -> Engine:
    """Check whether this SQLite has the required features."""
    with closing(open_scratch()) as connection:
        options = {str(row[0]) for row in connection.execute("PRAGMA compile_options")}
    if sqlite3.sqlite_version_info < (3, 35):
        return Engine(f"SQLite {SQLITE_VERSION} is too old.", "Use 3.35 or newer.")
    if "THREADSAFE=0" in options:
        return Engine(
            f"SQLite {SQLITE_VERSION} was built without threads.",
            "Use a Python whose SQLite was built with threads.",
        )
    foreign = "foreign keys" if "OMIT_FOREIGN_KEY" not in options else "no foreign keys"
    return Engine(f"SQLite {SQLITE_VERSION}, with threads and {foreign}.")
