"""The story of a guarded start: lock → check → resolve → hold → backup → rehearse → apply → verify.

Until COMMIT the old file is untouched; COMMIT is one transaction for the whole pending set, ledger
rows included; so a kill at any point leaves the old database or the new one. Two locks are held:

* the lock file keeps other gateways and commands out, from the first line to the end of `guarded`;
* SQLite's write lock keeps every other program out (a browser, the old gateway), from before the
  backup through COMMIT. The ledger is read again under it, for what such a program did until then.

The backup is made from a second connection: on the one that holds the transaction it would wait for
itself for ever. What was rehearsed on a copy of it has to come out the same on the live file.

Everything here is plain sqlite3 in the calling thread: a cancelled coroutine could not leave a
transaction open behind it.
"""

from __future__ import annotations

import os
from contextlib import closing, contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from local_mcp_gateway import __version__
from local_mcp_gateway.backup import create_backup, require_room, sweep
from local_mcp_gateway.database.connect import open_migration, open_reader
from local_mcp_gateway.database.integrity import probe
from local_mcp_gateway.database.lock import DatabaseLock
from local_mcp_gateway.errors import HistoryRefused, VerificationFailed
from local_mcp_gateway.guard.attempt import Attempt, no_progress
from local_mcp_gateway.guard.drift import check_drift
from local_mcp_gateway.guard.policy import GuardPolicy
from local_mcp_gateway.guard.rehearse import rehearse
from local_mcp_gateway.guard.report import GuardReport
from local_mcp_gateway.log import ignore
from local_mcp_gateway.migrate.apply import apply_pending
from local_mcp_gateway.migrate.folder import read_folder
from local_mcp_gateway.migrate.ledger import read_ledger
from local_mcp_gateway.migrate.resolve import Resolution, resolve
from local_mcp_gateway.migrate.verify import survey, verify
from local_mcp_gateway.schema import fingerprint, inspect

if TYPE_CHECKING:
    import sqlite3
    import threading
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.log import Emit


class guarded:  # noqa: N801  reads as a verb where it is used: `with guarded(database, migrations)`
    """Bring a database to its newest schema, and keep every other guard out until the block ends.

    Plain and blocking: an async program enters and leaves it in one worker thread. Raises a
    GatewayError with the database as it was; nothing is left locked then. After a block that ended
    without an exception the clean stop is recorded, so that the next start need not check the file.
    """

    def __init__(
        self,
        database: str | os.PathLike[str],
        migrations: str | os.PathLike[str],
        *,
        policy: GuardPolicy | None = None,
        lock_timeout_s: float = 0.0,
        emit: Emit = ignore,
        progress: Callable[[str, int, int], None] = no_progress,
        stop: threading.Event | None = None,
    ) -> None:
        self.attempt = Attempt(
            Path(database), Path(migrations), policy or GuardPolicy(), emit, progress, stop
        )
        self.lock = DatabaseLock(self.attempt.database, timeout_s=lock_timeout_s, stop=stop)

    def __enter__(self) -> GuardReport:
        """Take the lock and run the story; return what was done."""
        with self.attempt.phases.measured("lock"):
            self.lock.__enter__()
        try:
            self.attempt.emit("guard.locked", database=str(self.attempt.database), pid=os.getpid())
            return start(self.attempt)
        except BaseException:
            self.lock.__exit__(None, None, None)
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Record the clean stop if it was one, and release the lock."""
        if error is None:
            self.lock.record_clean_stop()
        self.lock.__exit__(kind, error, traceback)


def start(attempt: Attempt) -> GuardReport:
    """Go through the whole story; the caller holds the lock file."""
    fresh = check(attempt)
    plan = read_and_resolve(attempt, fresh=fresh)
    if not plan.pending:
        return report(attempt, "current", plan)
    with hold(attempt) as live:
        plan = resolve_again(attempt, live)
        backup = None if fresh else back_up(attempt, live, plan)
        rehearsal = rehearse(attempt, backup, plan) if backup else None
        steps = apply(attempt, live, plan, backup)
        verify_as_rehearsed(attempt, live, steps, rehearsal)
        commit(attempt, live)
    settle(attempt)
    return report(attempt, "created" if fresh else "migrated", plan, steps, backup)
