"""The story of a guarded start: lock → check → resolve → hold → backup → rehearse → apply → verify.

`guarded` takes the lock file, which keeps other gateways and commands out to the end of its block; what
happens to what is pending is in `pending`.

Everything here is plain sqlite3 in the calling thread: a cancelled coroutine could not leave a
transaction open behind it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from local_mcp_gateway.database.faults import explained
from local_mcp_gateway.database.lock import DatabaseLock
from local_mcp_gateway.guard.attempt import Attempt, no_progress
from local_mcp_gateway.guard.pending import apply_pending
from local_mcp_gateway.guard.policy import GuardPolicy
from local_mcp_gateway.guard.read import check, read
from local_mcp_gateway.log import ignore

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from types import TracebackType

    from local_mcp_gateway.database.lock import Holder
    from local_mcp_gateway.guard.report import GuardReport
    from local_mcp_gateway.log import Emit
    from local_mcp_gateway.migrate.apply import Step


class guarded:  # noqa: N801  reads as a verb where it is used: `with guarded(database, migrations)`
    """Bring a database to its newest schema, and keep every other guard out until the block ends.

    Plain and blocking: an async program enters and leaves it in a worker thread. Raises a
    GatewayError with the database as it was, and nothing is left locked then. After a block that
    ended without an exception the clean stop is recorded: the next start need not check the file.
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
        self.lock = DatabaseLock(
            self.attempt.database, timeout_s=lock_timeout_s, on_wait=self._tell_holder, stop=stop
        )

    def __enter__(self) -> GuardReport:
        """Take the lock and run the story; return what was done."""
        with self.attempt.phases.measured("lock"):
            self.lock.__enter__()
        try:
            self.attempt.emit("guard.locked", database=str(self.attempt.database), pid=os.getpid())
            with explained(self.attempt.database):
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
        try:
            if error is None:
                self.lock.record_clean_stop()
        finally:
            self.lock.__exit__(kind, error, traceback)

    def _tell_holder(self, holder: Holder | None) -> None:
        """Say once for whom this process waits."""
        facts = (
            {"pid": holder.pid, "since": holder.since, "command": holder.command} if holder else {}
        )
        self.attempt.emit("guard.waiting", database=str(self.attempt.database), **facts)


def start(attempt: Attempt) -> GuardReport:
    """Go through the whole story; the caller holds the lock file."""
    fresh = not attempt.serving and check(attempt)
    applied: tuple[Step, ...] = ()
    if attempt.policy.dev:
        from local_mcp_gateway.guard.rewind import read_in_dev

        plan, applied = read_in_dev(attempt, fresh=fresh)
    else:
        plan = read(attempt, fresh=fresh)
    return apply_pending(attempt, plan, fresh=fresh, applied=applied)
