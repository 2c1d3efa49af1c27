"""SQLite's errors that the owner or the machine has to solve, as situations with one sentence.

SQLite reports an extended code; its low byte is the class. Errors of a statement itself (syntax, a
constraint, a missing table) are not named here: whoever ran the statement knows whose it is.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local_mcp_gateway.errors import (
    Damaged,
    DatabaseBusy,
    DatabasePathProblem,
    DiskProblem,
    GatewayError,
    Interrupted,
    NotADatabase,
)

_IOERR_BY_NAME = {
    "SQLITE_IOERR_READ": "could not be read",
    "SQLITE_IOERR_SHORT_READ": "is shorter than its header says",
    "SQLITE_IOERR_WRITE": "could not be written",
    "SQLITE_IOERR_FSYNC": "could not be flushed to the disk",
    "SQLITE_IOERR_DIR_FSYNC": "could not be flushed to the disk",
}


def from_sqlite_error(error: sqlite3.Error, database: Path | str) -> GatewayError | None:
    """Return the situation behind an error of SQLite, or None where the statement itself is at fault."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return None
    name = error.sqlite_errorname
    match code & 0xFF:
        case sqlite3.SQLITE_NOTADB:
            return NotADatabase(f"{database} is not a SQLite database.", path=str(database))
        case sqlite3.SQLITE_CORRUPT:
            return Damaged(f"{database} is damaged: {error}.", path=str(database), cause=name)
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return DatabaseBusy(
                f"Another program is using {database} and did not let go of it in time.",
                path=str(database),
            )
        case sqlite3.SQLITE_FULL:
            return DiskProblem(
                f"The disk is full: {database} could not be written.",
                path=str(database),
                cause=name,
            )
        case sqlite3.SQLITE_IOERR:
            what = _IOERR_BY_NAME.get(name, "could not be read or written")
            return DiskProblem(
                f"The disk reported an error: {database} {what} ({name}).",
                path=str(database),
                cause=name,
            )
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_READONLY:
            return DatabasePathProblem(_why_not_opened(Path(database), error), path=str(database))
        case sqlite3.SQLITE_INTERRUPT:
            return Interrupted("The work was interrupted and rolled back.")
        case _:
            return None


def from_os_error(error: OSError, database: Path | str) -> GatewayError | None:
    """Return the situation behind an error of the operating system, if it is the machine's."""
    where = error.filename or database
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DiskProblem(f"The disk is full: {where} could not be written.", errno=error.errno)
    if error.errno == errno.EIO:
        return DiskProblem(f"The disk reported an error at {where}.", errno=error.errno)
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return DatabasePathProblem(f"{where} cannot be written by this user: {error.strerror}.")
    return None


@contextmanager
def translated_errors(database: Path | str) -> Iterator[None]:
    """Turn what SQLite or the system raises inside into the situation behind it, if there is one."""
    try:
        yield
    except OSError as error:
        problem = from_os_error(error, database)
        if problem is None:
            raise
        raise problem from error
    except sqlite3.Error as error:
        problem = from_sqlite_error(error, database)
        if problem is None:
            raise
        raise problem from error


def _why_not_opened(database: Path, error: sqlite3.Error) -> str:
    """Say what is wrong with the path; SQLite itself says only "unable to open database file"."""
    if database.is_dir():
        return f"{database} is a folder, not a database file."
    if not database.parent.is_dir():
        return f"The folder {database.parent} of the database does not exist."
    if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_READONLY:
        return f"{database} or its folder cannot be written by this user."
    return f"{database} cannot be opened or created by this user."
