"""Open SQLite connections with the right settings.

No other module sets a connection's pragmas.

Why these values: with DELETE + FULL (SQLite's default) and with WAL + NORMAL a committed transaction
can be lost in a power cut; WAL + FULL and anything + EXTRA survive it. Foreign keys are off while
migrations run, because a rebuild drops the old table and its cascades would delete the children. The
setting is a no-op inside a transaction, so it is made before BEGIN and read back.

The functions that open a connection raise what SQLite raises. The context managers that hold one open
translate it (`errors`): `reading` here, `write_lock` in `transactions`.

All connections have `isolation_level=None`: Python must not begin or commit anything by itself. Python
keeps no compiled statement for the next time either. SQLite asks the authorizer only while it compiles, and
an EXPLAIN that was compiled before an ALTER reads memory that SQLite has freed, which can crash the process.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeAlias
from urllib.parse import quote

from local_mcp_gateway.database.errors import ENGINE_ERRORS, raise_translated
from local_mcp_gateway.errors import DatabasePathProblem
from local_mcp_gateway.regular_file import NotAFile, require_file

Connection: TypeAlias = sqlite3.Connection
"""The type that other packages pass on without knowing the engine."""

BUSY_TIMEOUT_MS = 5_000
SQLITE_VERSION = sqlite3.sqlite_version
"""For the log: the version that the interpreter has."""
WAL_LIMIT_BYTES = 4 * 1024 * 1024
"""What a WAL is cut to after its checkpoint: as much as SQLite writes before it checkpoints by itself."""
SERVING_PRAGMAS = (
    f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}",
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    # Deleted and encrypted values are overwritten, so that no page keeps them for the next backup.
    "PRAGMA secure_delete=ON",
    # One large write would otherwise leave a WAL of its size for as long as the program runs.
    f"PRAGMA journal_size_limit={WAL_LIMIT_BYTES}",
)
"""For the connections that serve, in this order."""
SIDE_FILES = ("-wal", "-shm", "-journal")
"""The suffixes of the files that SQLite keeps next to a database."""

_EXTRA = 3
_WAL_PAUSE_S = 0.02


def has_content(path: Path) -> bool:
    """Return whether the database exists and is not empty; raises DatabasePathProblem for no file."""
    require_database_file(path)
    return path.exists() and path.stat().st_size > 0


def require_own_logs(path: Path) -> None:
    """Raise ForeignLog if a log next to the database was written for another file (`recovery`)."""
    if _log_of(path) is not None:
        from local_mcp_gateway.database.recovery import require_fitting_logs

        require_fitting_logs(path.resolve())


def _log_of(path: Path) -> str | None:
    """Return the write-ahead log or rollback journal next to the database, if one holds anything."""
    real = os.path.realpath(path) if os.path.islink(path) else path  # noqa: PTH114  every start asks this
    for log in (f"{real}-wal", f"{real}-journal"):
        if os.path.exists(log) and os.stat(log).st_size:  # noqa: PTH110, PTH116  the same
            return log
    return None


def open_migration(path: Path) -> sqlite3.Connection:
    """Open (or create, 0600, in WAL) the live database to be migrated: durable, foreign keys off.

    The journal mode of a database that exists is its owner's and stays as it is: nothing is written
    before the migration's own transaction. EXTRA survives a power cut in every mode (in WAL it is
    FULL). The caller holds the `DatabaseLock`: switching a new file to WAL would race otherwise.
    """
    new = not path.exists() or path.stat().st_size == 0
    if new:
        _create_private(path)
    connection = _connect(f"{uri(path)}?mode=rw")
    try:
        if new:
            _switch_to_wal(connection)
        survive_power_cut(connection)
        set_foreign_keys(connection, on=False)
        # Who migrates empties the WAL afterwards, unless it is replicated: then nobody else may checkpoint.
        connection.execute("PRAGMA wal_autocheckpoint=0")
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

    A caller that holds the `DatabaseLock` passes `locked`: the path is known to be a file, and the handle
    may write, so that closing it removes SQLite's `-wal` and `-shm` files; a read-only handle has to
    leave them.
    """
    if not locked:
        require_database_file(path)
    if not path.exists():
        raise DatabasePathProblem(f"There is no database at {path}.", path=str(path))
    if locked:
        return open_checked(f"{uri(path)}?mode=rw")
    require_own_logs(path)
    try:
        return open_checked(f"{uri(path)}?mode=ro")
    except sqlite3.OperationalError as error:
        # A hot journal or a WAL without its index needs a recovery that a read-only handle may
        # not do. Any reader does it at its first read, so allow it here, then only read.
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
            raise
    if os.access(path.resolve().parent, os.W_OK):
        return open_checked(f"{uri(path)}?mode=rw")
    return _open_unwritable(path)


def _open_unwritable(path: Path) -> sqlite3.Connection:
    """Open a database in a folder where SQLite cannot create the index of a write-ahead log.

    Without a log nobody has it open, and the file holds everything.
    """
    if (log := _log_of(path)) is not None:
        raise DatabasePathProblem(
            f"{log} has changes that can only be read where this user may write next to {path.name}.",
            hint="Copy both into a folder that can be written, and give the copy with --database.",
            path=str(path),
        )
    return open_checked(f"{uri(path)}?mode=ro&immutable=1")


def is_writable(path: Path) -> bool:
    """Return whether this user may write the database, or create it where it does not exist."""
    real = path.resolve()
    return os.access(real.parent, os.W_OK) and (not real.exists() or os.access(real, os.W_OK))


@contextmanager
def reading(path: Path, *, locked: bool = False) -> Iterator[sqlite3.Connection]:
    """Open the database for reading in a block, as `open_reader` does.

    Damage that SQLite finds inside the block (any page may be damaged) is raised as Damaged.
    """
    try:
        with closing(open_reader(path, locked=locked)) as connection:
            yield connection
    except ENGINE_ERRORS as error:
        raise_translated(error, path)


def open_immutable(path: Path) -> sqlite3.Connection:
    """Open a file that nothing writes to, read-only, without locks or files next to it."""
    return _connect(f"{uri(path)}?mode=ro&immutable=1")


def open_scratch(path: Path | None = None) -> sqlite3.Connection:
    """Open a copy that may be lost (or a database in memory): fast, foreign keys off."""
    connection = _connect(":memory:" if path is None else f"{uri(path)}?mode=rw")
    # First, or the change from WAL to another journal mode flushes the whole file.
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("PRAGMA journal_mode=MEMORY")
    set_foreign_keys(connection, on=False)
    return connection


def kept_journal_mode(path: Path) -> str:
    """Return the journal mode that a file keeps while nobody has it open: SQLite stores only WAL."""
    with path.open("rb") as file:
        header = file.read(19)
    return "wal" if header[18:] == b"\x02" else "delete"


def set_foreign_keys(connection: sqlite3.Connection, *, on: bool) -> None:
    """Switch the enforcement of foreign keys, and read it back: inside a transaction it is ignored."""
    connection.execute(f"PRAGMA foreign_keys={'ON' if on else 'OFF'}")
    (actual,) = connection.execute("PRAGMA foreign_keys").fetchone()
    if bool(actual) != on:
        raise RuntimeError(
            "PRAGMA foreign_keys was set inside a transaction, where it has no effect"
        )


def begin(connection: sqlite3.Connection, *, foreign_keys: bool | None = None) -> None:
    """Take SQLite's write lock. Foreign keys are switched first: inside a transaction it is too late."""
    if foreign_keys is not None:
        set_foreign_keys(connection, on=foreign_keys)
    connection.execute("BEGIN IMMEDIATE")


def commit(connection: sqlite3.Connection) -> None:
    """Commit the transaction of a scratch database, which need not be durable."""
    connection.execute("COMMIT")


def table_names(connection: sqlite3.Connection) -> frozenset[str]:
    """Return the names of all tables."""
    rows = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
    return frozenset(name for (name,) in rows)


def columns_of(connection: sqlite3.Connection) -> dict[str, set[str]]:
    """Return the names of the columns of every table."""
    found: dict[str, set[str]] = {}
    for table, column in connection.execute(
        "SELECT m.name, p.name FROM sqlite_schema AS m JOIN pragma_table_xinfo(m.name) AS p"
        " WHERE m.type = 'table' AND m.sql NOT LIKE 'CREATE VIRTUAL%'"
    ):
        found.setdefault(table, set()).add(column)
    return found


def is_empty(connection: sqlite3.Connection) -> bool:
    """Return whether the database has no objects, not even a table."""
    return connection.execute("SELECT 1 FROM sqlite_schema").fetchone() is None


def _connect(target: str) -> sqlite3.Connection:
    return sqlite3.connect(
        target,
        timeout=BUSY_TIMEOUT_MS / 1000,
        isolation_level=None,
        check_same_thread=False,  # the guard works in a worker thread and is closed by another
        cached_statements=0,
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
    from local_mcp_gateway.database.lock import hold_new_file  # the lock needs this module

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


def require_database_file(database: Path) -> None:
    """Raise DatabasePathProblem if the path is not a regular file, before SQLite blocks on it.

    The files that SQLite would open next to it are checked too.
    """
    for path in (os.fspath(database), *(f"{database}{suffix}" for suffix in SIDE_FILES)):
        try:
            require_file(path)
        except NotAFile as error:
            if path != os.fspath(database):
                raise DatabasePathProblem(
                    f"{path} is {error.kind}, in the place of a file of SQLite's own.",
                    hint="Move it away and start again.",
                    path=str(database),
                ) from None
            raise DatabasePathProblem(
                f"{path} is {error.kind}, not a database file.",
                hint="Give the file itself with --database or DATABASE_PATH.",
                path=str(database),
            ) from None
        except OSError:
            return  # opening it will raise the reason
