"""Seeds: data for a development database, from `.sql` or `.py` files, all of them or none."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from local_mcp_gateway.database.connect import begin_immediate, open_migration, set_foreign_keys
from local_mcp_gateway.database.lock import DatabaseLock
from local_mcp_gateway.errors import DatabasePathProblem
from local_mcp_gateway.guard.backup import back_up_now
from local_mcp_gateway.log import ignore
from local_mcp_gateway.migrate.ledger import ensure_ledger, note_event
from local_mcp_gateway.migrate.seeds import require_files, run_seeds
from local_mcp_gateway.schema import fingerprint, inspect

if TYPE_CHECKING:
    import sqlite3
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


def plant(
    connection: sqlite3.Connection,
    files: Sequence[Path],
    *,
    program_version: str,
    backup: str | None,
) -> None:
    """Run the seeds inside the caller's transaction, and record them in the history."""
    run_seeds(connection, files)
    ensure_ledger(connection)
    note_event(
        connection,
        "seeded",
        backup=backup,
        program_version=program_version,
        fingerprint=fingerprint(inspect(connection)),
    )
