"""Plan a run: read folder and ledger, check for drift, and find what is pending.

Nothing here writes. The plan is made twice: before the write lock, where most starts end because
nothing is pending, and again under it, since only then no other program can change the result.

Drift is a difference between the live schema and what the applied migrations make of an empty database.
The history stores the fingerprint of the schema's texts after the last migration, so an unchanged
schema costs neither inspection nor replay. Where the texts differ, the schema models are compared.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from local_mcp_gateway.database.connections import reading
from local_mcp_gateway.errors import (
    DriftRefused,
    ForbiddenStatement,
    HistoryRefused,
    MigrationFailed,
    UsageProblem,
)
from local_mcp_gateway.guard.context import Plan
from local_mcp_gateway.migrate.folder import NEW, read_folder
from local_mcp_gateway.migrate.resolve import resolve, resolve_with_history

if TYPE_CHECKING:
    from collections.abc import Callable

    from local_mcp_gateway.database.connections import Connection
    from local_mcp_gateway.guard.context import GuardContext
    from local_mcp_gateway.migrate.apply import Batch
    from local_mcp_gateway.migrate.folder import Folder, Migration
    from local_mcp_gateway.migrate.ledger import Ledger
    from local_mcp_gateway.migrate.resolve import Resolution
    from local_mcp_gateway.schema import Difference


def make_plan(context: GuardContext, *, fresh: bool) -> Plan:
    """Make the plan without a lock on the database; report it, and its drift if there is any."""
    context.phases.begin("read")
    if fresh:
        plan = _plan(context, _folder(context), None)
    else:
        with reading(context.database, locked=True) as reader:
            plan = _plan(context, _folder(context), context.ledger(reader))
    context.emit(
        "guard.resolved",
        applied=len(plan.resolution.applied),
        pending=[migration.tag for migration in plan.pending],
        duration_ms=context.phases.ms("read"),
    )
    if plan.drift:
        context.emit(
            "guard.drifted",
            objects=[f"{difference.kind} {difference.object}" for difference in plan.drift],
            hint="See `db diff`; write the change as a migration.",
        )
    context.checkpoint()
    return plan


def remake_plan(context: GuardContext, live: Connection, plan: Plan) -> Plan:
    """Make the plan again; the caller holds SQLite's write lock on `live`.

    Only the database may have changed. The files are those that were already read, unless dev mode has
    journaled some of them since.
    """
    context.phases.begin("read")
    folder = _folder(context) if plan.new_files else plan.folder
    return replace(_plan(context, folder, context.ledger(live)), done=plan.done)


def _folder(context: GuardContext) -> Folder:
    return read_folder(context.migrations, journal_new_files=context.policy.journal_new_files)


def _plan(context: GuardContext, folder: Folder, ledger: Ledger | None) -> Plan:
    allow = context.policy.allow_out_of_order
    if ledger is None:
        resolution = resolve(folder, (), allow_out_of_order=allow)
    else:
        resolution = resolve_with_history(folder, ledger, allow_out_of_order=allow)
    if resolution.problems:
        raise HistoryRefused(resolution.problems)
    pending = up_to(resolution, context.policy.to)
    now = ""
    drift: tuple[Difference, ...] = ()
    if ledger is not None:
        now = ledger.recorded_fingerprint() or ""
        if not now:  # somebody else changed the schema, or nobody has recorded it yet
            now = ledger.fingerprint()
            drift = find_drift(ledger, resolution, context.prepare)
    if drift and _refuses(context.policy.drift, pending=bool(pending)):
        raise DriftRefused(
            f"The schema of {context.database} was changed outside of its migrations: "
            + "; ".join(str(difference) for difference in drift[:3])
            + (f" and {len(drift) - 3} more." if len(drift) > 3 else "."),
            drift=[str(difference) for difference in drift],
        )
    new_files = frozenset(migration.tag for migration in pending if migration.idx == NEW)
    batches: tuple[Batch, ...] = ()
    if pending:
        from local_mcp_gateway.migrate.apply import make_batches

        batches = make_batches(pending)
    return Plan(folder, resolution, pending, batches, new_files, now, drift)


def up_to(resolution: Resolution, tag: str | None) -> tuple[Migration, ...]:
    """Return the pending migrations up to and with `tag`; raises UsageProblem for an unknown one."""
    if tag is None:
        return resolution.pending
    for number, migration in enumerate(resolution.pending, 1):
        if migration.tag == tag:
            return resolution.pending[:number]
    if any(entry.tag == tag for entry in resolution.applied):
        return ()
    raise UsageProblem(
        f"There is no migration `{tag}` in the folder.",
        hint="`db status` lists the tags; give one of them.",
    )


def _refuses(policy: str, *, pending: bool) -> bool:
    return policy == "refuse" or (policy == "auto" and pending)


def find_drift(
    ledger: Ledger,
    resolution: Resolution,
    prepare: Callable[[Connection], None] | None = None,
) -> tuple[Difference, ...]:
    """Return the differences from a replay of the applied migrations; none for an unmigrated database.

    `prepare` registers the SQL functions that the migrations call.
    """
    if not resolution.applied or ledger.last_fingerprint() == ledger.fingerprint():
        return ()
    from local_mcp_gateway.migrate.replay import replay
    from local_mcp_gateway.schema import compare, inspect

    applied = (entry.migration for entry in resolution.applied)
    try:
        with closing(replay(applied, prepare=prepare, past=True)) as expected:
            return compare(inspect(expected), inspect(ledger.connection))
    except (MigrationFailed, ForbiddenStatement):
        return ()  # applied out of order, say: a replay says nothing about this one
