"""Translate the errors of SQLite and of the operating system into the gateway's own.

One table for both: a full disk is the same error, whoever noticed it. SQLite reports an extended code; its
low byte is the class. Errors of a statement itself (syntax, a constraint, a missing table) are not in the
table: the caller that ran the statement knows where it came from.

`translated_errors` is for a block, `raise_translated` for an except clause: a start on which nothing fails
does not come here.
"""

from __future__ import annotations

import errno
import sqlite3
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from local_mcp_gateway.errors import (
    Damaged,
    DatabaseBusy,
    DatabasePathProblem,
    DiskProblem,
    GatewayError,
    Interrupted,
    NoResources,
    NoRoom,
    NotADatabase,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

ENGINE_ERRORS = (OSError, sqlite3.Error, UnicodeDecodeError)
"""What SQLite and the system raise; a message of SQLite's may quote a damaged schema, which Python cannot decode."""

_BY_CODE: dict[int, type[GatewayError]] = {
    sqlite3.SQLITE_NOTADB: NotADatabase,
    sqlite3.SQLITE_CORRUPT: Damaged,
    sqlite3.SQLITE_BUSY: DatabaseBusy,
    sqlite3.SQLITE_LOCKED: DatabaseBusy,
    sqlite3.SQLITE_FULL: NoRoom,
    sqlite3.SQLITE_IOERR: DiskProblem,
    sqlite3.SQLITE_NOMEM: NoResources,
    sqlite3.SQLITE_CANTOPEN: DatabasePathProblem,
    sqlite3.SQLITE_PERM: DatabasePathProblem,
    sqlite3.SQLITE_READONLY: DatabasePathProblem,
    sqlite3.SQLITE_INTERRUPT: Interrupted,
}
_BY_ERRNO: dict[int, type[GatewayError]] = {
    errno.ENOSPC: NoRoom,
    errno.EDQUOT: NoRoom,
    errno.EFBIG: NoRoom,
    errno.EIO: DiskProblem,
    errno.ENOMEM: NoResources,
    errno.EAGAIN: NoResources,
    errno.EMFILE: NoResources,
    errno.ENFILE: NoResources,
    errno.EROFS: DatabasePathProblem,
    errno.EACCES: DatabasePathProblem,
    errno.EPERM: DatabasePathProblem,
}
_IOERR_BY_NAME = {
    "SQLITE_IOERR_READ": "could not be read",
    "SQLITE_IOERR_SHORT_READ": "is shorter than its header says",
    "SQLITE_IOERR_WRITE": "could not be written",
    "SQLITE_IOERR_FSYNC": "could not be flushed to the disk",
    "SQLITE_IOERR_DIR_FSYNC": "could not be flushed to the disk",
}

_UNKNOWN_FORMAT = "unsupported file format"
"""SQLite's message about a schema format number that is too high; its code is that of any error."""
_MALFORMED = b"malformed database schema"
_NEWER_SQLITE = (
    "Run it with a newer SQLite if one made this file; else its header is damaged: restore the newest good"
    " backup with `db restore latest`."
)


@contextmanager
def translated_errors(
    path: Path | str, *, doing: str = "", otherwise: type[GatewayError] | None = None
) -> Iterator[None]:
    """Raise the gateway error for what SQLite or the system raises inside, if there is one.

    `doing` completes "Cannot …" where more can be said than that the database could not be used.
    `otherwise` is the error where the table has none, or has one about the database's own path: while a
    backup is written, for example, the backup's path is wrong.
    """
    try:
        yield
    except ENGINE_ERRORS as error:
        raise_translated(error, path, doing=doing, otherwise=otherwise)


def raise_translated(
    error: OSError | sqlite3.Error | UnicodeDecodeError,
    path: Path | str,
    *,
    doing: str = "",
    otherwise: type[GatewayError] | None = None,
) -> NoReturn:
    """Raise the gateway error for one that was caught, or the same again where there is none."""
    problem = to_gateway_error(error, path, doing=doing, otherwise=otherwise)
    if problem is None:
        raise error
    raise problem from error


def readable(error: UnicodeDecodeError) -> sqlite3.DatabaseError | None:
    """Return SQLite's error if its message quotes a damaged schema, which Python cannot decode."""
    if not error.object.startswith(_MALFORMED):
        return None
    meant = sqlite3.DatabaseError(error.object.decode(errors="replace"))
    meant.sqlite_errorcode, meant.sqlite_errorname = sqlite3.SQLITE_CORRUPT, "SQLITE_CORRUPT"
    return meant


def to_gateway_error(
    error: OSError | sqlite3.Error | UnicodeDecodeError,
    path: Path | str,
    *,
    doing: str = "",
    otherwise: type[GatewayError] | None = None,
) -> GatewayError | None:
    """Return the gateway error for an error of SQLite or the system, None where the table has none."""
    if isinstance(error, UnicodeDecodeError):
        if (meant := readable(error)) is None:
            return None
        error = meant
    kind = _kind(error)
    if otherwise is not None and kind in (None, DatabasePathProblem):
        kind = otherwise
    if kind is None:
        return None
    if isinstance(error, OSError):
        where = error.filename or path
        hint = (
            "Make it writable for this user, or give another with --database."
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
            and kind is DatabasePathProblem
            else None
        )
        said = f"Cannot {doing} {path}: {error.strerror or error}" if doing else None
        return kind(
            said or _system_says(error, kind, where), hint=hint, path=str(where), errno=error.errno
        )
    said = f"Cannot {doing} {path}: {error}" if doing else None
    return kind(
        said or _sqlite_says(error, kind, path),
        hint=_NEWER_SQLITE if str(error) == _UNKNOWN_FORMAT else None,
        path=str(path),
        cause=_name(error),
    )


def _kind(error: OSError | sqlite3.Error) -> type[GatewayError] | None:
    if isinstance(error, OSError):
        return _BY_ERRNO.get(error.errno or 0)
    if str(error) == _UNKNOWN_FORMAT:
        return NotADatabase
    return _BY_CODE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)


def _name(error: sqlite3.Error) -> str:
    return str(getattr(error, "sqlite_errorname", ""))


def _system_says(error: OSError, kind: type[GatewayError], where: object) -> str:
    if kind is NoRoom:
        return f"The disk is full: {where} could not be written"
    if kind is DiskProblem:
        return f"The disk reported an error at {where}"
    if kind is NoResources:
        return f"The system has no more for this process: {error.strerror}"
    return f"{where} cannot be written by this user: {error.strerror}"


def _sqlite_says(error: sqlite3.Error, kind: type[GatewayError], database: Path | str) -> str:
    if str(error) == _UNKNOWN_FORMAT:
        return f"{database} has a file format that SQLite {sqlite3.sqlite_version} does not know"
    if kind is NotADatabase:
        return f"{database} is not a SQLite database"
    if kind is Damaged:
        return f"{database} is damaged: {error}"
    if kind is DatabaseBusy:
        return f"Another program is using {database} and did not let go of it in time"
    if kind is NoRoom:
        return f"The disk is full: {database} could not be written"
    if kind is DiskProblem:
        name = _name(error)
        what = _IOERR_BY_NAME.get(name, "could not be read or written")
        return f"The disk reported an error: {database} {what} ({name})"
    if kind is NoResources:
        return f"The system has no more memory for what SQLite does with {database}"
    if kind is Interrupted:
        return f"The work on {database} was interrupted and rolled back"
    return _why_not_opened(Path(database), error)


def _why_not_opened(database: Path, error: sqlite3.Error) -> str:
    """Say what is wrong with the path; SQLite itself says only "unable to open database file"."""
    if database.is_dir():
        return f"{database} is a folder, not a database file"
    if not database.parent.is_dir():
        return f"The folder {database.parent} of the database does not exist"
    if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_READONLY:
        return f"{database} or its folder cannot be written by this user"
    return f"{database} cannot be opened or created by this user"
