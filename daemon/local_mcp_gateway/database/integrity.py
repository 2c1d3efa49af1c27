"""Check that a file is a sound SQLite database, as cheaply as possible.

After a clean stop only the header is read. Otherwise `quick_check` runs, within the time that the
policy grants. Both run under the `DatabaseLock`; SQLite rolls back an interrupted transaction here, at
the first read.
"""

from __future__ import annotations

import os
import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Literal, NamedTuple

from local_mcp_gateway.database.connections import (
    SQLITE_VERSION,
    is_empty,
    open_checked,
    open_scratch,
    require_database_file,
    require_own_logs,
    uri,
)
from local_mcp_gateway.database.errors import raise_translated, readable, translated_errors
from local_mcp_gateway.database.lock import MAGIC, stamp, stopped_before
from local_mcp_gateway.database.run import UNWATCHED, Run
from local_mcp_gateway.errors import Damaged, DatabasePathProblem, NotADatabase, UsageProblem
from local_mcp_gateway.regular_file import open_file

REBUILD_INDEXES = (
    "An index and its table disagree. If the rows are right, `db repair --reindex` rebuilds the index from"
    " them."
)
"""Which of the two is damaged cannot be seen."""
FULL_CHECK_BYTES = 64 << 20
"""Default maximum size for a full check, which takes a third of a second then: a damaged index, or a page
that was never written and is a valid, older one, shows only where table and index disagree."""
_HEADER_BYTES = 100
_OPS_BETWEEN_LOOKS = 20_000
# Violations of the data's rules, not damage to the file: they are older, and a migration may fix them.
_NOT_DAMAGE = ("NULL value in ", "CHECK constraint failed in ")
_MISSING = re.compile(
    r"(?:unknown|no such) function: (?P<function>[^()]+)|no such collation sequence: (?P<collation>.+)"
)


class Probe(NamedTuple):
    """What is known about the file."""

    state: Literal["new", "clean", "checked"]
    bytes: int
    complete: bool = True
    """False when the quick check reached its time limit without a finding."""


def probe(
    database: Path,
    *,
    quick_check_limit_s: float = 10.0,
    run: Run = UNWATCHED,
) -> Probe:
    """Check the file; raise NotADatabase, Damaged, ForeignLog or DatabasePathProblem. The lock is held.

    An empty database is new, however large its file: a first start that was killed leaves one
    behind, and the next start must behave as if it had not.
    """
    header, size = _header(database)
    if size == 0:
        return Probe("new", 0)
    require_own_logs(database)
    page_size = int.from_bytes(header[16:18], "big")
    pages = int.from_bytes(header[28:32], "big")
    page_size = 65_536 if page_size == 1 else page_size
    now = stamp(database)
    if now is not None and now == stopped_before(database) and size > page_size:
        if now["wal_size"] == 0 and size < pages * page_size:
            raise Damaged(
                f"{database} is damaged: it is {size} bytes long, its header says {pages * page_size}."
            )
        return Probe("clean", size)
    with translated_errors(database):
        connection = open_checked(f"{uri(database)}?mode=rw")
        try:
            complete = quick_check(connection, database, limit_s=quick_check_limit_s, run=run)
            empty = is_empty(connection)
        finally:
            connection.close()
    if empty:
        return Probe("new", size)
    return Probe("checked", size, complete)


def check_sound(
    reader: sqlite3.Connection,
    path: Path,
    *,
    full: bool,
    limit_s: float | None = None,
    run: Run = UNWATCHED,
) -> None:
    """Raise Damaged unless the file is sound: checked in full, or quickly and within `limit_s`."""
    if full:
        full_check(reader, path, run=run)
    else:
        quick_check(reader, path, limit_s=limit_s, run=run)


def quick_check(
    connection: sqlite3.Connection,
    database: Path | str = "The database",
    *,
    limit_s: float | None = None,
    run: Run = UNWATCHED,
) -> bool:
    """Raise Damaged unless SQLite finds the file sound; return False if the time limit came first."""
    deadline = None if limit_s is None else time.monotonic() + limit_s
    return _run_check(connection, "quick_check", database, deadline, run)


def full_check(
    connection: sqlite3.Connection,
    database: Path | str = "The database",
    *,
    run: Run = UNWATCHED,
) -> None:
    """Raise Damaged unless the file is sound and every index agrees with its table.

    Where the quick check finds nothing, only an index and its table disagree, and the hint says so.
    """
    try:
        _run_check(connection, "integrity_check", database, None, run)
    except Damaged as error:
        with translated_errors(database):
            if not findings(connection, "quick_check"):
                error.hint = REBUILD_INDEXES
        raise


def rebuild_every_index(
    connection: sqlite3.Connection, database: Path, *, run: Run = UNWATCHED
) -> None:
    """Rebuild the indexes from their tables, inside the caller's transaction.

    Raises Damaged if that does not make the database sound.
    """
    try:
        connection.execute("REINDEX")
    except sqlite3.IntegrityError as error:
        raise Damaged(f"An index of {database} cannot be rebuilt: {error}.") from error
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise
        raise UsageProblem(
            f"An index of {database} cannot be rebuilt here: {error}.",
            hint="Run REINDEX in the program that has what the index needs.",
        ) from error
    full_check(connection, database, run=run)


def _run_check(
    connection: sqlite3.Connection,
    pragma: str,
    database: Path | str,
    deadline: float | None,
    run: Run,
) -> bool:
    def look() -> int:
        run.progress("check", 0, 0)
        late = deadline is not None and time.monotonic() > deadline
        return int(late or run.stopped)

    connection.set_progress_handler(look, _OPS_BETWEEN_LOOKS)
    run.progress("check", 0, 0)  # SQLite before 3.41 looks up from no check of a table
    try:
        damage = findings(connection, pragma)
    except sqlite3.Error as error:
        interrupted = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT
        if interrupted and not run.stopped:
            return False
        raise_translated(error, database)
    finally:
        connection.set_progress_handler(None, 0)
    if damage:
        raise Damaged(f"{database} is damaged: {damage[0]}.", path=str(database), findings=damage)
    return True


def findings(connection: sqlite3.Connection, pragma: str) -> list[str]:
    """Return what SQLite's check finds wrong with the file, but not rows that violate a constraint.

    An application may use functions and collations of its own in indexes and checks. Missing ones are
    replaced by stand-ins, so that SQLite can read the structure. The contents of such an index cannot
    be checked then, and the quick check has to do.
    """
    missed: set[str] = set()
    while True:
        try:
            lines = [" ".join(row[0].split()) for row in connection.execute(f"PRAGMA {pragma}(20)")]
        except UnicodeDecodeError as error:
            raise readable(error) or error from error
        except sqlite3.OperationalError as error:
            if str(error) in missed or not _stand_in(connection, str(error)):
                raise  # the same message twice: no stand-in helps
            missed.add(str(error))
            pragma = "quick_check"
        else:
            # Out of memory, an interruption and the like are reported as rows, in words.
            return [line for line in lines if line != "ok" and not line.startswith(_NOT_DAMAGE)]


def _stand_in(connection: sqlite3.Connection, message: str) -> bool:
    """Register what this message of SQLite misses; return whether it was about one."""
    missing = _MISSING.search(message)
    if missing is None:
        return False
    if missing["function"]:
        connection.create_function(missing["function"], -1, lambda *_: None, deterministic=True)
    else:
        connection.create_collation(missing["collation"], lambda a, b: (a > b) - (a < b))
    return True


def _header(database: Path) -> tuple[bytes, int]:
    """Read the first 100 bytes and the size; refuse an obvious non-database before SQLite opens it."""
    require_database_file(database)
    try:
        with os.fdopen(open_file(database), "rb") as file:
            status = os.fstat(file.fileno())
            header = file.read(_HEADER_BYTES)
    except FileNotFoundError:
        if not database.parent.is_dir():
            raise DatabasePathProblem(
                f"The folder {database.parent} of the database does not exist."
            ) from None
        return b"", 0
    except PermissionError:
        raise DatabasePathProblem(f"{database} cannot be read by this user.") from None
    except NotADirectoryError:
        raise DatabasePathProblem(f"{database.parent} is not a folder.") from None
    except OSError as error:
        raise DatabasePathProblem(f"{database} cannot be read: {error.strerror}.") from error
    if status.st_nlink > 1:
        raise DatabasePathProblem(
            f"{database} has {status.st_nlink} names (hard links), and each would get a write-ahead log"
            " of its own.",
            hint=f"Keep one of them: `find DIR -samefile {database.name}` lists them; a symbolic link does"
            " no harm.",
            path=str(database),
        )
    if status.st_size and not header.startswith(MAGIC):
        raise NotADatabase(f"{database} is not a SQLite database.", path=str(database))
    if 0 < len(header) < _HEADER_BYTES:
        raise Damaged(f"{database} is damaged: it ends within its header.", path=str(database))
    return header, status.st_size


def row_counts(connection: sqlite3.Connection) -> dict[str, int]:
    """Count the rows of every ordinary table, by its folded name; shadow tables are their virtual table's."""
    tables = connection.execute(
        "SELECT lower(name), printf('main.\"%w\"', name) FROM pragma_table_list"
        " WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    ).fetchall()
    return {
        name: int(connection.execute(f"SELECT count(*) FROM {quoted}").fetchone()[0])
        for name, quoted in tables
    }


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
