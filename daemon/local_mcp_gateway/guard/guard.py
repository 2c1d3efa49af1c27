"""The story of a guarded start, from the lock file to the COMMIT that lasts.

    lock → check         `exclusive`: the lock file, a crash's left-overs, the file itself
    plan                 folder and ledger read, what is pending; most starts end here
    hold                 `write_transaction`: SQLite's write lock, then the plan made again under it
    backup               from a second connection, listed once it is whole on the disk
    rehearse             the whole pending chain on a copy of the backup
    apply → verify       the live file; what comes out has to be what was rehearsed
    commit → durable     one COMMIT, ledger rows included; flushed and read back before it is told

Until COMMIT the old file is untouched, so a kill at any point leaves the old database or the new one.
The lock file keeps out other gateways and commands; the write lock keeps out every other program.

Everything here is plain, synchronous code in the calling thread: a cancelled coroutine could not
leave a transaction open behind it.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from local_mcp_gateway.database.run import no_progress
from local_mcp_gateway.errors import GatewayError
from local_mcp_gateway.guard.context import GuardContext, GuardPolicy, GuardReport
from local_mcp_gateway.guard.plan import make_plan, remake_plan
from local_mcp_gateway.guard.transaction import exclusive, prune_backups, write_transaction
from local_mcp_gateway.log import ignore

if TYPE_CHECKING:
    import os
    import threading
    from collections.abc import Iterator

    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.database.run import Progress
    from local_mcp_gateway.guard.context import Plan, Planner, Rehearsal, State
    from local_mcp_gateway.log import Emit


@contextmanager
def guarded(
    database: str | os.PathLike[str],
    migrations: str | os.PathLike[str],
    *,
    policy: GuardPolicy | None = None,
    planner: Planner = make_plan,
    lock_timeout_s: float = 0.0,
    emit: Emit = ignore,
    progress: Progress = no_progress,
    stop: threading.Event | None = None,
) -> Iterator[GuardReport]:
    """Bring a database to its newest schema, and keep every other guard out until the block ends.

    Plain and blocking: an async program enters and leaves it in a worker thread. Raises a
    GatewayError with the database as it was, and nothing is left locked then. After a block that
    ended without an exception the clean stop is recorded: the next start need not check the file.
    """
    context = GuardContext(
        Path(database),
        Path(migrations),
        policy or GuardPolicy(),
        emit=emit,
        progress=progress,
        stop=stop,
    )
    with exclusive(context, lock_timeout_s=lock_timeout_s) as fresh:
        yield apply_pending(context, planner(context, fresh=fresh), fresh=fresh)


def hot_apply(
    database: Path,
    migrations: Path,
    *,
    policy: GuardPolicy,
    planner: Planner = make_plan,
    emit: Emit = ignore,
    progress: Progress = no_progress,
    stop: threading.Event | None = None,
) -> GuardReport:
    """Apply what is pending while this process serves the database: in dev on a save, and on `reload`.

    The same story with the lock held already and the file known to be sound. The caller has paused
    its own writers; readers may go on and see the old schema until COMMIT. Runs in a worker thread.
    Raises as `guarded` does, with the database as it was.
    """
    context = GuardContext(
        database, migrations, policy, serving=True, emit=emit, progress=progress, stop=stop
    )
    return apply_pending(context, planner(context, fresh=False), fresh=False)


def apply_pending(context: GuardContext, plan: Plan, *, fresh: bool) -> GuardReport:
    """Bring the database to the plan's end, and report it.

    A loop, because a `no-transaction` migration splits the pending set: each batch is held, backed up,
    rehearsed and committed by itself, and the whole rest is rehearsed before its first batch.
    """
    backup: Backup | None = None
    if plan.pending:
        # Most starts end here and do not pay for it.
        from local_mcp_gateway.guard.apply import apply_live
    try:
        while plan.pending:
            asked = plan.batches[0].foreign_keys
            with write_transaction(context, foreign_keys=asked, backs_up=not fresh) as transaction:
                live = transaction.connection
                plan = remake_plan(context, live, plan)
                if not plan.pending:
                    break  # another program applied them between our look and our write lock
                if plan.batches[0].foreign_keys != asked:
                    continue  # it applied some: what is next needs another setting before BEGIN
                if not fresh:
                    applied = [entry.tag for entry in plan.resolution.applied]
                    backup = transaction.back_up(before=plan.pending[0].tag, applied=applied)
                rehearsal = _rehearse(context, backup, plan) if backup else None
                result = apply_live(context, live, plan, backup, rehearsal)
                transaction.commit()
            for step in result.steps:
                context.emit("migration.applied", **step.as_fields())
            plan = plan.after(result)
    except GatewayError as error:
        _name_committed(error, plan)
        raise
    finally:
        if backup:
            prune_backups(context)  # one that fails at every start would fill the disk
    return _report(context, plan, backup, fresh=fresh)


def _rehearse(context: GuardContext, backup: Backup, plan: Plan) -> Rehearsal | None:
    """Rehearse where the policy wants it, and report what it found; None where it does not.

    A new database has no rehearsal, and does not pay for its imports.
    """
    from local_mcp_gateway.guard.rehearse import rehearsal_is_due, rehearse, report_hazards

    if not rehearsal_is_due(context, plan):
        return None
    rehearsal = rehearse(context, backup, plan)
    report_hazards(context, plan, rehearsal, backup)
    return rehearsal


def _name_committed(error: GatewayError, plan: Plan) -> None:
    """Say which batches are in the database already, where the error would say that nothing is."""
    if not plan.done:
        return
    tags = [step.tag for step in plan.done]
    error.message += f" Committed before it, and kept: {', '.join(tags)}."
    error.hint = error.hint.replace(
        "the database is as it was", f"the database is as {tags[-1]} left it"
    )
    error.data["committed"] = tags


def _report(
    context: GuardContext, plan: Plan, backup: Backup | None, *, fresh: bool
) -> GuardReport:
    """Report the end: one canonical line with the duration of every phase."""
    state: State = "current" if not plan.done else "created" if fresh else "migrated"
    durations_ms = context.phases.durations_ms
    report = GuardReport(
        context.database, state, plan.done, backup, plan.fingerprint, plan.drift, durations_ms
    )
    context.emit("guard.ready", **report.as_fields())
    return report
