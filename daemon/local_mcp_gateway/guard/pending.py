"""Apply what is pending: hold → back up → rehearse → apply → verify → commit.

Until COMMIT the old file is untouched; COMMIT is one transaction for the whole pending set, ledger
rows included; so a kill at any point leaves the old database or the new one. SQLite's write lock keeps
every other program out (a browser, the old gateway), from before the backup through COMMIT. The ledger
is read again under it, for what such a program did until then.

The backup is made from a second connection: on the one that holds the transaction it would wait for
itself for ever. What was rehearsed on a copy of it has to come out the same on the live file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from local_mcp_gateway.errors import GatewayError
from local_mcp_gateway.guard.read import read_again
from local_mcp_gateway.guard.report import GuardReport

if TYPE_CHECKING:
    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.guard.attempt import Attempt
    from local_mcp_gateway.guard.report import State
    from local_mcp_gateway.guard.values import Plan
    from local_mcp_gateway.migrate.apply import Step


def apply_pending(
    attempt: Attempt, plan: Plan, *, fresh: bool, applied: tuple[Step, ...] = ()
) -> GuardReport:
    """Bring the database to the plan's end, and report it with the steps `applied` before, if any.

    The caller holds the lock file. A loop, because a `no-transaction` migration splits the pending set:
    each group is held, backed up, rehearsed and committed by itself, and the whole rest is rehearsed
    before its first group.
    """
    backup: Backup | None = None
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
