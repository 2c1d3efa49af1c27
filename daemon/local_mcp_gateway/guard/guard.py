"""A guarded start from beginning to end: lock, plan, back up, rehearse, apply, verify, commit.

    lock → check         `exclusive`: the lock file, what a crash left, the file itself
    plan                 read folder and ledger, find what is pending; most starts end here
    hold                 `write_transaction`: SQLite's write lock, then the plan made again under it
    backup               from a second connection, listed once it is whole on the disk
    rehearse             all pending migrations on a copy of the backup
    apply → verify       the live file; the result must equal the rehearsed one
    commit → durable     one COMMIT, ledger rows included; flushed and read back before it is reported

Until COMMIT the old file is untouched, so a kill at any point leaves the old database or the new one.
The lock file keeps out other gateways and commands; the write lock keeps out every other program.

The plan is made twice: before the write lock, where most starts end because nothing is pending, and again
under it, since only then no other program can change the result.

Everything here is synchronous code in the calling thread: a cancelled coroutine could leave a
transaction open behind it.
"""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from local_mcp_gateway.backup import prune
from local_mcp_gateway.database import no_progress, no_report, reading
from local_mcp_gateway.errors import DriftRefused, GatewayError, HistoryRefused, MigrationFailed
from local_mcp_gateway.guard.context import GuardContext, GuardPolicy, GuardReport
from local_mcp_gateway.guard.transaction import exclusive, write_transaction
from local_mcp_gateway.migrate import Ledger, Plan, read_folder

if TYPE_CHECKING:
    import os
    import threading
    from collections.abc import Iterator, Sequence

    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.database import Progress
    from local_mcp_gateway.guard.context import Planner, State
    from local_mcp_gateway.guard.transaction import WriteTransaction
    from local_mcp_gateway.log import Emit
    from local_mcp_gateway.migrate import Rehearsal


def make_plan(context: GuardContext, *, fresh: bool) -> Plan:
    """Make the plan without a lock on the database; report it, and its drift if there is any."""
    context.phases.begin("plan")
    if fresh:
        plan = _read_plan(context, None)
    else:
        with reading(context.database, locked=True) as reader:
            ledger = Ledger(reader)
            plan = _read_plan(context, ledger).with_drift(ledger, context.policy.prepare)
    if plan.drift:
        _refuse_drift(context, plan)
    context.emit(
        "guard.resolved",
        applied=len(plan.applied),
        pending=[migration.tag for migration in plan.pending],
        duration_ms=context.phases.ms("plan"),
    )
    if plan.drift:
        context.emit(
            "guard.drifted",
            objects=[f"{difference.kind} {difference.object}" for difference in plan.drift],
            hint=plan.drift_hint or "See `db diff`; write the change as a migration.",
        )
    context.checkpoint()
    return plan


def remake_plan(context: GuardContext, live: Ledger, plan: Plan) -> Plan:
    """Make the plan again; the caller holds SQLite's write lock.

    Only the database may have changed since, unless dev mode has journaled files.
    """
    context.phases.begin("plan")
    known = None if plan.has_new_files else plan
    if known is not None and known.still_fits(live):
        again = known._replace(drift=(), applied_by_hand=None)
    else:
        again = _read_plan(context, live, known)
    again = again.with_drift(live, context.policy.prepare)
    if again.drift:
        _refuse_drift(context, again)
    return again._replace(done=plan.done)


def _read_plan(context: GuardContext, ledger: Ledger | None, known: Plan | None = None) -> Plan:
    """Read the ledger, and the folder unless a plan has it; raises HistoryRefused or UsageProblem."""
    policy = context.policy
    folder = (
        read_folder(context.migrations, journal_new_files=policy.journal_new_files)
        if known is None
        else known.folder
    )
    plan = Plan.read(
        folder, ledger, allow_out_of_order=policy.allow_out_of_order, prepare=policy.prepare
    )
    if plan.problems:
        raise HistoryRefused(plan.problems)
    return plan.up_to(policy.to)


def _refuse_drift(context: GuardContext, plan: Plan) -> None:
    """Raise DriftRefused unless the policy lets the plan's drift pass."""
    policy, drift = context.policy.drift, plan.drift
    if policy == "refuse" or (policy == "auto" and plan.pending):
        raise DriftRefused(
            f"The schema of {context.database} was changed outside of its migrations: "
            + "; ".join(str(difference) for difference in drift[:3])
            + (f" and {len(drift) - 3} more." if len(drift) > 3 else "."),
            hint=plan.drift_hint,
            drift=[str(difference) for difference in drift],
        )


@contextmanager
def guarded(
    database: str | os.PathLike[str],
    migrations: str | os.PathLike[str],
    *,
    policy: GuardPolicy | None = None,
    planner: Planner = make_plan,
    lock_timeout_s: float = 0.0,
    emit: Emit = no_report,
    progress: Progress = no_progress,
    stop: threading.Event | None = None,
) -> Iterator[GuardReport]:
    """Bring a database to its newest schema, and keep every other guard out until the block ends.

    Blocks: an async program enters and leaves it in a worker thread. Raises a GatewayError with the
    database as it was and nothing locked. After a block that ended without an exception the clean stop
    is recorded: the next start need not check the file.
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
    emit: Emit = no_report,
    progress: Progress = no_progress,
    stop: threading.Event | None = None,
) -> GuardReport:
    """Apply what is pending while this process serves the database: in dev on a save, and on `reload`.

    The same steps with the lock held already and the file known to be sound. The caller has paused
    its own writers; readers may go on and see the old schema until COMMIT. Runs in a worker thread.
    Raises as `guarded` does, with the database as it was.
    """
    context = GuardContext(
        database, migrations, policy, serving=True, emit=emit, progress=progress, stop=stop
    )
    return apply_pending(context, planner(context, fresh=False), fresh=False)


def apply_pending(context: GuardContext, plan: Plan, *, fresh: bool) -> GuardReport:
    """Apply all batches of the plan, and report the result.

    A loop, because a `no-transaction` migration splits the pending set: each batch is held, backed up,
    rehearsed and committed by itself, and the whole rest is rehearsed before its first batch.
    """
    backup: Backup | None = None
    backups: tuple[Backup, ...] = ()
    if plan.pending:
        # Most starts end here and do not pay for it.
        from local_mcp_gateway.migrate import apply_batch

        replicated = _replicate(context, plan, fresh=fresh)
    try:
        while plan.pending:
            asked = plan.batches[0].foreign_keys
            with write_transaction(context, foreign_keys=asked, backs_up=not fresh) as transaction:
                plan = remake_plan(context, transaction.ledger, plan)
                if not plan.pending:
                    break  # another program applied them before we had the write lock
                if plan.batches[0].foreign_keys != asked:
                    continue  # it applied some: the next batch needs another setting before BEGIN
                if not fresh:
                    applied = [entry.migration.tag for entry in plan.applied]
                    backup = transaction.back_up(
                        before=plan.pending[0].tag,
                        applied=applied,
                        replicated=None if plan.done else replicated,
                    )
                    backups = transaction.backups
                rehearsal = _rehearse(context, transaction, backup, plan) if backup else None
                last = plan.batches[0].migrations[-1].tag
                rehearsed = rehearsal.results[last] if rehearsal else None
                result = apply_batch(
                    plan,
                    transaction.ledger,
                    context.policy,
                    backup=backup.name if backup else None,
                    rehearsed=rehearsed,
                    untouched=transaction.untouched,
                    run=context,
                )
                context.emit(
                    "guard.verified",
                    fingerprint=result.fingerprint,
                    rehearsed=rehearsed is not None,
                    duration_ms=context.phases.ms("verify"),
                )
                # A kill between this and COMMIT leaves it journaled and pending: the next start applies it.
                plan.journal_new(plan.batches[0].migrations)
                transaction.commit(result.fingerprint)
            for step in result.steps:
                context.emit("migration.applied", **step.as_fields())
            plan = plan.after(result)
    except GatewayError as error:
        if plan.drift_hint is not None and isinstance(error, MigrationFailed):
            error.hint = f"{plan.drift_hint} The database is unchanged."
        _name_committed(error, plan)
        raise
    finally:
        if backups:  # retries of a failing start would fill the disk
            _prune(context, backups, refused=bool(plan.pending))
    return _report(context, plan, backup, fresh=fresh)


def _replicate(context: GuardContext, plan: Plan, *, fresh: bool) -> int | None:
    """Have the state before the first pending migration in the replica, if there is one."""
    replicate = context.policy.replicate
    return None if fresh or replicate is None else replicate(context, plan.pending[0].tag)


def _rehearse(
    context: GuardContext, transaction: WriteTransaction, backup: Backup, plan: Plan
) -> Rehearsal | None:
    """Rehearse if the policy requires it, and report the findings; None if it does not.

    A new database has no rehearsal, and does not pay for its imports.
    """
    from local_mcp_gateway.guard.rehearse import rehearsal_is_due, rehearse_backup, report_hazards

    if not rehearsal_is_due(context, plan):
        return None
    rehearsal = rehearse_backup(context, backup, plan, transaction.untouched)
    report_hazards(context, rehearsal, backup)
    return rehearsal


def _prune(context: GuardContext, backups: Sequence[Backup], *, refused: bool) -> None:
    """Remove those of the backups, newest first, that the policy no longer keeps; report a failure and go on.

    `refused`: after a start that changed nothing, which keeps more.
    """
    if context.policy.retention is None:
        return
    context.phases.begin("prune")
    try:
        removed = prune(backups, context.policy.retention, datetime.now(UTC), refused=refused)
    except GatewayError as error:
        context.emit("backup.prune_failed", message=error.message, hint=error.hint)
        return
    if removed:
        context.emit(
            "backup.pruned",
            names=[backup.name for backup in removed],
            bytes=sum(backup.bytes for backup in removed),
        )


def _name_committed(error: GatewayError, plan: Plan) -> None:
    """Name the batches that are committed, where the error would say that nothing is."""
    if not plan.done:
        return
    tags = [step.tag for step in plan.done]
    error.message += f" Committed before it, and kept: {', '.join(tags)}."
    error.hint = error.hint.replace(
        "the database is unchanged", f"the database is as {tags[-1]} left it"
    )
    error.data["committed"] = tags


def _report(
    context: GuardContext, plan: Plan, backup: Backup | None, *, fresh: bool
) -> GuardReport:
    """Report the result: one canonical line with the duration of every phase."""
    state: State = "current" if not plan.done else "created" if fresh else "migrated"
    durations_ms = context.phases.durations_ms
    report = GuardReport(
        context.database, state, plan.done, backup, plan.fingerprint, plan.drift, durations_ms
    )
    context.emit("guard.ready", **report.as_fields())
    return report
