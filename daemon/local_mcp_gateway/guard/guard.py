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
from pathlib import Path
from typing import TYPE_CHECKING

from local_mcp_gateway.database.faults import explained
from local_mcp_gateway.database.lock import DatabaseLock
from local_mcp_gateway.errors import GatewayError
from local_mcp_gateway.guard.attempt import Attempt, no_progress
from local_mcp_gateway.guard.policy import GuardPolicy
from local_mcp_gateway.guard.read import check, read, read_again
from local_mcp_gateway.guard.report import GuardReport
from local_mcp_gateway.log import ignore

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from types import TracebackType

    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.database.lock import Holder
    from local_mcp_gateway.guard.report import State
    from local_mcp_gateway.guard.values import Plan
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
    """Go through the whole story; the caller holds the lock file.

    A loop, because a `no-transaction` migration splits the pending set: each group is held, backed
    up, rehearsed and committed by itself, and the whole rest is rehearsed before its first group.
    """
    fresh = not attempt.serving and check(attempt)
    backup: Backup | None = None
    applied: tuple[Step, ...] = ()
    if attempt.policy.dev:
        from local_mcp_gateway.guard.rewind import read_in_dev

        plan, applied = read_in_dev(attempt, fresh=fresh)
    else:
        plan = read(attempt, fresh=fresh)
    if plan.pending:
        from local_mcp_gateway.guard import steps  # most starts end here and do not pay for it
    try:
        while plan.pending:
            with steps.hold(attempt, plan, fresh=fresh) as live:
                asked = steps.wants_foreign_keys(plan.group)
                plan = read_again(attempt, live, plan)
                if not plan.pending:
                    break  # another program applied them between our look and our write lock
                if steps.wants_foreign_keys(plan.group) != asked:
                    continue  # it applied some: what is next needs another setting before BEGIN
                backup = None if fresh else steps.back_up(attempt, plan)
                rehearsal = steps.rehearse(attempt, backup, plan) if backup else None
                done = steps.apply_live(attempt, live, plan, backup, rehearsal)
                steps.commit(attempt, live)
            steps.settle(attempt, done, backup)
            applied += done.steps
            plan = plan.after(done)
    except GatewayError as error:
        _tell_committed(error, applied)
        raise
    finally:
        if backup:
            steps.thin_out(attempt)  # one that fails at every start would fill the disk
    state: State = "current" if not applied else "created" if fresh else "migrated"
    return ready(attempt, state=state, plan=plan, applied=applied, backup=backup)


def _tell_committed(error: GatewayError, applied: tuple[Step, ...]) -> None:
    """Say which groups are in the database already, where the error would say that nothing is."""
    if not applied:
        return
    tags = [step.tag for step in applied]
    error.message += f" Committed before it, and kept: {', '.join(tags)}."
    error.hint = error.hint.replace(
        "the database is as it was", f"the database is as {tags[-1]} left it"
    )
    error.data["committed"] = tags


def ready(
    attempt: Attempt,
    *,
    state: State,
    plan: Plan,
    applied: tuple[Step, ...],
    backup: Backup | None,
) -> GuardReport:
    """Report the end: one canonical line with the duration of every phase."""
    report = GuardReport(
        attempt.database,
        state,
        applied,
        backup,
        plan.fingerprint,
        plan.drift,
        dict(attempt.phases.durations_ms),
    )
    attempt.emit("guard.ready", **report.as_fields())
    return report
