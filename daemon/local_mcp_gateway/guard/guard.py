"""The story of a guarded start: lock → check → plan → hold → backup → rehearse → apply → verify → commit.

`guarded` takes the lock file, which keeps other gateways and commands out to the end of its block.

Until COMMIT the old file is untouched; COMMIT is one transaction for the whole pending set, ledger
rows included; so a kill at any point leaves the old database or the new one. SQLite's write lock keeps
every other program out (a browser, the old gateway), from before the backup through COMMIT. The ledger
is read again under it, for what such a program did until then.

The backup is made from a second connection: on the one that holds the transaction it would wait for
itself for ever. What was rehearsed on a copy of it has to come out the same on the live file.

Everything here is plain sqlite3 in the calling thread: a cancelled coroutine could not leave a
transaction open behind it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from local_mcp_gateway.database.errors import translated_errors
from local_mcp_gateway.database.lock import DatabaseLock
from local_mcp_gateway.errors import GatewayError
from local_mcp_gateway.guard.context import GuardContext, GuardPolicy, GuardReport, no_progress
from local_mcp_gateway.guard.plan import check, make_plan, remake_plan
from local_mcp_gateway.log import ignore
from local_mcp_gateway.migrate.apply import wants_foreign_keys

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from types import TracebackType

    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.database.lock import Holder
    from local_mcp_gateway.guard.context import Plan, Rehearsal, State
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
        self.context = GuardContext(
            Path(database), Path(migrations), policy or GuardPolicy(), emit, progress, stop
        )
        self.lock = DatabaseLock(
            self.context.database, timeout_s=lock_timeout_s, on_wait=self._tell_holder, stop=stop
        )

    def __enter__(self) -> GuardReport:
        """Take the lock and run the story; return what was done."""
        with self.context.phases.measured("lock"):
            self.lock.__enter__()
        try:
            self.context.emit("guard.locked", database=str(self.context.database), pid=os.getpid())
            with translated_errors(self.context.database):
                return start(self.context)
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
        self.context.emit("guard.waiting", database=str(self.context.database), **facts)


def start(context: GuardContext) -> GuardReport:
    """Go through the whole story; the caller holds the lock file."""
    fresh = not context.serving and check(context)
    applied: tuple[Step, ...] = ()
    if context.policy.dev:
        from local_mcp_gateway.guard.rewind import make_plan_in_dev

        plan, applied = make_plan_in_dev(context, fresh=fresh)
    else:
        plan = make_plan(context, fresh=fresh)
    return apply_pending(context, plan, fresh=fresh, applied=applied)


def hot_apply(
    database: Path,
    migrations: Path,
    *,
    policy: GuardPolicy,
    emit: Emit = ignore,
    progress: Callable[[str, int, int], None] = no_progress,
    stop: threading.Event | None = None,
) -> GuardReport:
    """Back up, rehearse, apply and verify what is pending; nothing pending is a report too.

    The caller holds the database's lock (`guarded`) and has paused its own writers; readers may go
    on and see the old schema until COMMIT. Runs in a worker thread. Raises as `guarded` does, with
    the database as it was.
    """
    with translated_errors(database):
        return start(GuardContext(database, migrations, policy, emit, progress, stop, serving=True))


def apply_pending(
    context: GuardContext, plan: Plan, *, fresh: bool, applied: tuple[Step, ...] = ()
) -> GuardReport:
    """Bring the database to the plan's end, and report it with the steps `applied` before, if any.

    The caller holds the lock file. A loop, because a `no-transaction` migration splits the pending set:
    each group is held, backed up, rehearsed and committed by itself, and the whole rest is rehearsed
    before its first group.
    """
    backup: Backup | None = None
    if plan.pending:
        # Most starts end here and do not pay for it.
        from local_mcp_gateway.guard import transaction
    try:
        while plan.pending:
            with transaction.write_lock(context, plan, fresh=fresh) as live:
                asked = wants_foreign_keys(plan.group)
                plan = remake_plan(context, live, plan)
                if not plan.pending:
                    break  # another program applied them between our look and our write lock
                if wants_foreign_keys(plan.group) != asked:
                    continue  # it applied some: what is next needs another setting before BEGIN
                backup = None if fresh else transaction.back_up(context, plan)
                rehearsal = _rehearse(context, backup, plan) if backup else None
                done = transaction.apply_live(context, live, plan, backup, rehearsal)
                transaction.commit(context, live)
            transaction.fsync_and_verify(context, done, backup)
            applied += done.steps
            plan = plan.after(done)
    except GatewayError as error:
        _tell_committed(error, applied)
        raise
    finally:
        if backup:
            transaction.prune_backups(context)  # one that fails at every start would fill the disk
    state: State = "current" if not applied else "created" if fresh else "migrated"
    return ready(context, state=state, plan=plan, applied=applied, backup=backup)


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
    context: GuardContext,
    *,
    state: State,
    plan: Plan,
    applied: tuple[Step, ...],
    backup: Backup | None,
) -> GuardReport:
    """Report the end: one canonical line with the duration of every phase."""
    report = GuardReport(
        context.database,
        state,
        applied,
        backup,
        plan.fingerprint,
        plan.drift,
        dict(context.phases.durations_ms),
    )
    context.emit("guard.ready", **report.as_fields())
    return report


def _rehearse(context: GuardContext, backup: Backup, plan: Plan) -> Rehearsal | None:
    """Rehearse where the policy wants it, and face what it found; None where it does not.

    A new database has no rehearsal, and does not pay for its imports.
    """
    from local_mcp_gateway.guard import rehearse as stage
    from local_mcp_gateway.guard.hazards import report_hazards

    if not stage.rehearsal_is_due(context, plan):
        return None
    rehearsal = stage.rehearse(context, backup, plan)
    report_hazards(context, plan, rehearsal, backup)
    return rehearsal
