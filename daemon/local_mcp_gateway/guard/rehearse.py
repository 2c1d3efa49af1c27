"""The rehearsal: the whole pending chain on a copy of the user's own data, before the live file."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from local_mcp_gateway.backup import scratch_copy
from local_mcp_gateway.database.connect import begin_immediate, open_scratch, set_foreign_keys
from local_mcp_gateway.errors import MigrationFailed
from local_mcp_gateway.guard.harmless import cannot_fail_on_data
from local_mcp_gateway.guard.hazards import HazardWatch
from local_mcp_gateway.guard.report import Phases
from local_mcp_gateway.guard.transact import transact
from local_mcp_gateway.guard.values import Rehearsal
from local_mcp_gateway.migrate.groups import wants_foreign_keys

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.database.connect import Connection
    from local_mcp_gateway.guard.attempt import Attempt
    from local_mcp_gateway.guard.values import Done, Plan


def is_due(attempt: Attempt, plan: Plan) -> bool:
    """Tell whether the policy wants this plan rehearsed.

    `auto` leaves out what cannot fail on data; a policy that refuses hazards has to know them first.
    """
    if attempt.policy.rehearse == "always" or attempt.policy.destructive == "refuse":
        return True
    return attempt.policy.rehearse == "auto" and not all(
        cannot_fail_on_data(migration.sql) for migration in plan.pending
    )


def rehearse(attempt: Attempt, backup: Backup, plan: Plan) -> Rehearsal:
    """Apply everything pending to a copy of `backup`, with the same checks; the copy is removed.

    Raises what the live run would raise; the live file is untouched.
    """
    with attempt.phases.measured("rehearse"), scratch_copy(backup) as copy:
        try:
            rehearsal = rehearse_on(attempt, copy, plan)
        except MigrationFailed as error:
            if not plan.resolution.applied and "already exists" in error.message:
                error.hint = (
                    "This database has tables but no record of migrations:"
                    " take it over with `db adopt`, which finds out how far it is."
                )
            raise
    attempt.emit(
        "migration.rehearsed",
        migrations=[step.tag for step in rehearsal.steps],
        statements=sum(step.statements for step in rehearsal.steps),
        hazards=len(rehearsal.hazards),
        duration_ms=round(rehearsal.duration_ms, 3),
    )
    attempt.checkpoint()
    return rehearsal


def rehearse_on(
    attempt: Attempt,
    copy: Path,
    plan: Plan,
    *,
    after_each: Callable[[Connection, str], None] = lambda _connection, _tag: None,
) -> Rehearsal:
    """Apply everything pending to this file, which nobody else uses and which may be lost.

    `after_each` sees the copy after each migration, inside its transaction.
    """
    phases = Phases()  # the rehearsal is one phase of the start; its inner ones are not the start's
    done: list[Done] = []
    with phases.measured("all"), closing(open_scratch(copy)) as scratch:
        attempt.prepare(scratch)
        watch = HazardWatch(scratch)
        executed = 0

        def begin(tag: str) -> None:
            attempt.progress(f"rehearse {tag}", executed, len(plan.pending))

        def end(tag: str) -> None:
            nonlocal executed
            executed += 1
            watch.after_migration()
            after_each(scratch, tag)

        rest = plan
        while rest.pending:
            set_foreign_keys(scratch, on=wants_foreign_keys(rest.group))
            begin_immediate(scratch, copy)
            one = transact(
                attempt,
                scratch,
                rest.group,
                backup=None,
                stamped=plan.folder.stamped,
                drifted=bool(plan.drift),
                phases=phases,
                watch=watch.before_statement,
                begun=begin,
                ended=end,
            )
            scratch.execute("COMMIT")
            if rest.group[0].directives.no_transaction:
                after_each(scratch, one.steps[-1].tag)
            watch.rows_lost(one.losses, one.steps)
            done.append(one)
            rest = rest.after(one)
    return Rehearsal(
        steps=tuple(step for one in done for step in one.steps),
        fingerprints={one.steps[-1].tag: one.fingerprint for one in done},
        hazards=tuple(watch.found),
        duration_ms=phases.durations_ms["all"],
    )
