"""Seeds: data for a development database, from `.sql` or `.py` files, all of them or none."""

from __future__ import annotations

import runpy
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from local_mcp_gateway.database.connect import begin_immediate, open_migration, set_foreign_keys
from local_mcp_gateway.database.lock import DatabaseLock
from local_mcp_gateway.errors import DatabasePathProblem, GatewayError, SeedFailed, UsageProblem
from local_mcp_gateway.guard.backup import back_up_now
from local_mcp_gateway.log import ignore
from local_mcp_gateway.migrate.ledger import ensure_ledger, note_event
from local_mcp_gateway.migrate.statements import split
from local_mcp_gateway.schema import fingerprint, inspect

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence
    from pathlib import Path

    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.log import Emit


def seed_guarded(
    database: Path,
    files: Sequence[Path],
    *,
    backup_folder: Path,
    program_version: str,
    lock_timeout_s: float = 0.0,
    emit: Emit = ignore,
    stop: threading.Event | None = None,
) -> Backup:
    """Back the database up, then run every seed in one transaction; return the backup.

    Holds the database's lock. A seed that fails leaves the database as it was.
    """
    require_files(files)
    if not database.exists():
        raise DatabasePathProblem(
            f"There is no database at {database}.", hint="Create it with `db migrate` first."
        )
    with DatabaseLock(database, timeout_s=lock_timeout_s, stop=stop) as lock:
        backup = back_up_now(
            database,
            backup_folder=backup_folder,
            program_version=program_version,
            emit=emit,
            stop=stop,
        )
        with closing(open_migration(database)) as live:
            set_foreign_keys(live, on=True)
            begin_immediate(live, database)
            plant(live, files, program_version=program_version, backup=backup.name)
            live.execute("COMMIT")
        lock.record_clean_stop()
    emit("database.seeded", database=str(database), files=[str(file) for file in files])
    return backup


def require_files(files: Sequence[Path]) -> None:
    """Raise UsageProblem for a seed that is not there or of a kind that is not known."""
    for file in files:
        if file.suffix not in (".sql", ".py"):
            raise UsageProblem(f"The seed {file} is neither a .sql nor a .py file.")
        if not file.is_file():
            raise UsageProblem(f"There is no seed file {file}.", hint="Check the path.")


def plant(
    connection: sqlite3.Connection,
    files: Sequence[Path],
    *,
    program_version: str,
    backup: str | None,
) -> None:
    """Run the seeds inside the caller's transaction, and record them in the history."""
    for file in files:
        try:
            connection.set_authorizer(_no_transactions)
            _run(connection, file)
        finally:
            connection.set_authorizer(None)
    ensure_ledger(connection)
    note_event(
        connection,
        "seeded",
        backup=backup,
        program_version=program_version,
        fingerprint=fingerprint(inspect(connection)),
    )


def _run(connection: sqlite3.Connection, file: Path) -> None:
    try:
        if file.suffix == ".py":
            _run_python(connection, file)
        else:
            _run_sql(connection, file)
    except GatewayError:
        raise
    except Exception as error:  # whatever a person's Python does
        raise SeedFailed(f"{file}: {type(error).__name__}: {error}.") from error


def _run_python(connection: sqlite3.Connection, file: Path) -> None:
    run = runpy.run_path(str(file)).get("seed")
    if not callable(run):
        raise SeedFailed(f"{file} has no function `seed(connection)`.")
    run(connection)


def _run_sql(connection: sqlite3.Connection, file: Path) -> None:
    for statement in split(file.read_text(encoding="utf-8")):
        try:
            connection.execute(statement.text)
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise SeedFailed(f"{file}, line {statement.line}: {error}.") from error


def _no_transactions(action: int, *_: str | None) -> int:
    """Refuse BEGIN, COMMIT and the like: the seeds are one transaction, which is not theirs."""
    forbidden = (sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH)
    return sqlite3.SQLITE_DENY if action in forbidden else sqlite3.SQLITE_OK
