"""Seeds: data for a development database, from `.sql` or `.py` files, all of them or none."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from local_mcp_gateway.backup import sweep
from local_mcp_gateway.database.connect import begin_immediate, open_migration, set_foreign_keys
from local_mcp_gateway.database.faults import explained
from local_mcp_gateway.database.integrity import probe
from local_mcp_gateway.database.lock import DatabaseLock
from local_mcp_gateway.errors import DatabasePathProblem
from local_mcp_gateway.guard.backup import back_up_now
from local_mcp_gateway.guard.hold import commit, settle
from local_mcp_gateway.guard.values import Done
from local_mcp_gateway.migrate.ledger import ensure_ledger, note_event
from local_mcp_gateway.migrate.seals import text_fingerprint
from local_mcp_gateway.migrate.seeds import (
    named_deferred_keys,
    require_files,
    roll_back,
    run_seeds,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.database.connect import Connection
    from local_mcp_gateway.guard.attempt import Attempt


def seed_guarded(attempt: Attempt, files: Sequence[Path], *, lock_timeout_s: float = 0.0) -> Backup:
    """Back the database up, then run every seed in one transaction; return the backup.

    Holds the database's lock, and SQLite's from before the backup through COMMIT. A seed that fails
    leaves the database as it was.
    """
    require_files(files)
    database = attempt.database
    if not database.exists():
        raise DatabasePathProblem(
            f"There is no database at {database}.", hint="Create it with `db migrate` first."
        )
    with (
        DatabaseLock(database, timeout_s=lock_timeout_s, stop=attempt.stop) as lock,
        explained(database),
    ):
        sweep(database, attempt.backup_folder)
        probe(database, quick_check_limit_s=attempt.policy.quick_check_limit_s, stop=attempt.stop)
        with closing(open_migration(database)) as live:
            attempt.prepare(live)
            set_foreign_keys(live, on=True)
            begin_immediate(live, database)
            try:
                backup = back_up_now(
                    database,
                    backup_folder=attempt.backup_folder,
                    program_version=attempt.policy.program_version,
                    emit=attempt.emit,
                    progress=lambda done, total: attempt.progress("backup", done, total),
                    stop=attempt.stop,
                )
                now = plant(
                    live,
                    files,
                    program_version=attempt.policy.program_version,
                    backup=backup.name,
                )
                attempt.checkpoint()
                with named_deferred_keys():
                    commit(attempt, live)
            finally:
                roll_back(live)
        settle(attempt, Done((), now, ()), backup)
        lock.record_clean_stop()
    attempt.emit("database.seeded", database=str(database), files=[str(file) for file in files])
    return backup


def plant(
    connection: Connection,
    files: Sequence[Path],
    *,
    program_version: str,
    backup: str | None,
) -> str:
    """Run the seeds inside the caller's transaction, record them, and return the schema's fingerprint."""
    run_seeds(connection, files)
    ensure_ledger(connection)
    note_event(connection, "seeded", backup=backup, program_version=program_version)
    return text_fingerprint(connection)
