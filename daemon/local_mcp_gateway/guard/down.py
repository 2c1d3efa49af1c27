"""Revert migrations (`db down`): lock → hold → backup → rehearse → revert → verify.

If a migration has no down file, the restore that would do the same is offered with its cost, never done.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple, cast

from local_mcp_gateway.backup import list_backups, rows_lost, scratch_copy
from local_mcp_gateway.database import (
    begin,
    commit,
    kept_file,
    kept_journal_mode,
    open_scratch,
    reading,
    translated_errors,
)
from local_mcp_gateway.errors import DriftRefused, GatewayError, NoWayBack, UsageProblem
from local_mcp_gateway.guard.transaction import exclusive, write_transaction
from local_mcp_gateway.migrate import DownPlan, Ledger, Plan, read_folder

if TYPE_CHECKING:
    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.database import Connection
    from local_mcp_gateway.guard.context import GuardContext
    from local_mcp_gateway.migrate import Divergence, Step

_COMPARISON_LIMIT_S = 10.0


def plan_down_on(
    context: GuardContext, connection: Connection, *, steps: int | None, to: str | None
) -> DownPlan:
    """Plan the revert; raises HistoryRefused, DriftRefused, NoWayBack or UsageProblem."""
    ledger = context.ledger(connection)
    found = Plan.read(read_folder(context.migrations), ledger, prepare=context.policy.prepare)
    try:
        plan = DownPlan.make(
            found.resolution, ledger, steps=steps, to=to, prepare=context.policy.prepare
        )
    except NoWayBack as error:
        _offer_restore(context, error)
        raise
    if plan.drift and context.policy.drift != "warn":
        raise DriftRefused(
            f"The schema of {context.database} was changed outside of its migrations: {plan.drift[0]}.",
            hint=found.with_drift(ledger, context.policy.prepare).drift_hint,
            drift=[str(difference) for difference in plan.drift],
        )
    return plan


def plan_down(context: GuardContext, *, steps: int | None, to: str | None) -> DownPlan:
    """Plan the revert without any lock, to show it before it is confirmed."""
    with reading(context.database) as reader:
        return plan_down_on(context, reader, steps=steps, to=to)


class Reverted(NamedTuple):
    """The result of a revert: everything in it is durable."""

    steps: tuple[Step, ...]
    fingerprint: str
    backup: Backup | None


def go_back(
    context: GuardContext, *, steps: int | None, to: str | None, lock_timeout_s: float = 0.0
) -> Reverted:
    """Revert migrations, all or nothing; raises with the database as it was."""
    with exclusive(context, lock_timeout_s=lock_timeout_s) as fresh:
        if fresh:
            raise UsageProblem(
                f"{context.database} has no applied migrations.", hint="See `db status`."
            )
        replicated = _replicate(context, plan_down(context, steps=steps, to=to))
        with write_transaction(context) as transaction:
            live = transaction.connection
            plan = plan_down_on(context, live, steps=steps, to=to)
            if not plan.reversals:
                return Reverted((), context.ledger(live).fingerprint(), None)
            applied = [entry.tag for entry in plan.applied]
            newest = plan.reversals[0].applied.tag
            backup = transaction.back_up(
                before=f"down-{newest}", applied=applied, replicated=replicated
            )
            with scratch_copy(backup) as copy:
                journal_mode = kept_journal_mode(copy)
                with closing(open_scratch(copy)) as scratch:
                    context.policy.prepare(scratch)
                    begin(scratch)
                    _revert(context, plan, scratch, backup, journal_mode=journal_mode)
            context.checkpoint()
            reverted = _revert(context, plan, live, backup)
            transaction.commit()
        for step in reverted:
            context.emit("migration.reverted", **step.as_fields())
    return Reverted(reverted, transaction.fingerprint, backup)


def _replicate(context: GuardContext, plan: DownPlan) -> int | None:
    """Have the state before the revert in the replica, if there is one."""
    replicate = context.policy.replicate
    if replicate is None or not plan.reversals:
        return None
    return replicate(context, f"down-{plan.reversals[0].applied.tag}")


def go_back_on_copy(context: GuardContext, divergence: Divergence) -> None:
    """Revert migrations in `context.database`, a copy that may be lost.

    For dev mode's rewind, whose folder has changed by now: the divergence has what was applied.
    """
    copy = context.database
    with translated_errors(copy), kept_file(copy) as scratch:
        context.policy.prepare(scratch)
        begin(scratch)
        plan = DownPlan.make(
            divergence.history,
            context.ledger(scratch),
            steps=len(divergence.tags),
            to=None,
            prepare=context.policy.prepare,
        )
        _revert(context, plan, scratch, None)
        commit(scratch)


def _revert(
    context: GuardContext,
    plan: DownPlan,
    connection: Connection,
    backup: Backup | None,
    journal_mode: str | None = None,
) -> tuple[Step, ...]:
    return plan.revert(
        context.ledger(connection),
        backup=backup.name if backup else None,
        options=context.policy,
        journal_mode=journal_mode,
        run=context,
    )


def _offer_restore(context: GuardContext, error: NoWayBack) -> None:
    """Offer the newest backup from before all migrations that were to be reverted."""
    tags = set(cast("list[str]", error.data.pop("reverts")))
    backup = next(
        (
            found
            for found in list_backups(context.database, context.backup_folder)
            if not tags & set(found.applied)
        ),
        None,
    )
    error.data["backup"] = backup.name if backup else None
    if backup is None:
        error.hint += "; there is no backup from before it."
    else:
        cost = _cost(context, backup)
        error.hint += f", or restore the backup from before it: `db restore {backup.name}`{cost}."


def _cost(context: GuardContext, backup: Backup) -> str:
    """Describe what a restore would lose, as far as both files can be read."""
    try:
        lost = rows_lost(
            context.database, backup.path, ignored=Ledger.TABLES, limit_s=_COMPARISON_LIMIT_S
        )
    except GatewayError:
        return ""
    if not lost:
        return " (nothing was written since)"
    return f" (it would lose what was written since: {'; '.join(map(str, lost))})"
