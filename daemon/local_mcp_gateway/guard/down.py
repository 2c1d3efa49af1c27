"""Revert migrations (`db down`): lock → hold → backup → rehearse → revert → verify.

The expected result is known beforehand: the schema that the remaining migrations make of an empty
database. Any other result is refused and rolled back. If a migration has no down file, the restore that
would do the same is offered with its cost, never done.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from local_mcp_gateway.backup import list_backups, scratch_copy
from local_mcp_gateway.backup.row_diff import rows_lost
from local_mcp_gateway.database.connections import open_scratch, reading, translated_errors
from local_mcp_gateway.database.transactions import begin, commit
from local_mcp_gateway.errors import (
    DriftRefused,
    GatewayError,
    HistoryRefused,
    NoWayBack,
    ProblemCode,
    UsageProblem,
    VerificationFailed,
)
from local_mcp_gateway.guard.apply import watch_rebuilds
from local_mcp_gateway.guard.context import BatchResult
from local_mcp_gateway.guard.plan import find_drift
from local_mcp_gateway.guard.transaction import exclusive, write_transaction
from local_mcp_gateway.migrate.down import WayBack, revert, select_chain, ways_back
from local_mcp_gateway.migrate.folder import read_folder
from local_mcp_gateway.migrate.ledger import Ledger
from local_mcp_gateway.migrate.replay import replay
from local_mcp_gateway.migrate.resolve import resolve
from local_mcp_gateway.migrate.statements import split
from local_mcp_gateway.migrate.verify import count_rows, verify, verify_dependents
from local_mcp_gateway.schema import compare, hazards_of, inspect

if TYPE_CHECKING:
    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.database.connections import Connection
    from local_mcp_gateway.guard.context import GuardContext
    from local_mcp_gateway.migrate.folder import Migration
    from local_mcp_gateway.migrate.resolve import AppliedMigration, Resolution
    from local_mcp_gateway.schema import Hazard, Schema

# Pending or unjournaled files do not matter for a revert.
_HARMLESS = frozenset({ProblemCode.OUT_OF_ORDER, ProblemCode.UNJOURNALED, ProblemCode.DUPLICATE})

_COMPARISON_LIMIT_S = 10.0


@dataclass(frozen=True, slots=True)
class DownPlan:
    """What a revert would do."""

    resolution: Resolution
    ways: tuple[WayBack, ...]
    """Newest first."""
    expected: Schema
    """The schema that the remaining migrations make."""
    found: Schema
    hazards: tuple[Hazard, ...]


def plan_down_on(
    context: GuardContext, connection: Connection, *, steps: int | None, to: str | None
) -> DownPlan:
    """Plan the revert; raises HistoryRefused, DriftRefused, NoWayBack or UsageProblem."""
    ledger = context.ledger(connection)
    resolution = resolve(read_folder(context.migrations), ledger.rows())
    return _plan(context, ledger, resolution, steps=steps, to=to)


def _plan(
    context: GuardContext,
    ledger: Ledger,
    resolution: Resolution,
    *,
    steps: int | None,
    to: str | None,
) -> DownPlan:
    problems = [problem for problem in resolution.problems if problem.code not in _HARMLESS]
    if problems:
        raise HistoryRefused(problems)
    chain = select_chain(resolution.applied, steps=steps, to=to)
    ways, missing = ways_back(chain, ledger.downs(entry.tag for entry in chain))
    if missing:
        raise _no_way_back(context, missing, chain)
    found = inspect(ledger.connection)
    drift = find_drift(ledger, resolution, context.prepare)
    if drift and context.policy.drift != "warn":
        raise DriftRefused(
            f"The schema of {context.database} was changed outside of its migrations: {drift[0]}.",
            drift=[str(difference) for difference in drift],
        )
    remaining = resolution.applied[: len(resolution.applied) - len(chain)]
    with closing(
        replay((entry.migration for entry in remaining), prepare=context.prepare, past=True)
    ) as memory:
        expected = inspect(memory)
    statements = [statement.text for way in ways for statement in split(way.sql)]
    return DownPlan(resolution, ways, expected, found, hazards_of(statements, found, expected))


def plan_down(context: GuardContext, *, steps: int | None, to: str | None) -> DownPlan:
    """Plan the revert without any lock, to show it before it is confirmed."""
    with reading(context.database) as reader:
        return plan_down_on(context, reader, steps=steps, to=to)


def go_back(
    context: GuardContext, *, steps: int | None, to: str | None, lock_timeout_s: float = 0.0
) -> tuple[BatchResult, Backup | None]:
    """Revert migrations, all or nothing; raises with the database as it was."""
    with exclusive(context, lock_timeout_s=lock_timeout_s) as fresh:
        if fresh:
            raise UsageProblem(
                f"{context.database} has no applied migrations.", hint="See `db status`."
            )
        with write_transaction(context) as transaction:
            live = transaction.connection
            plan = plan_down_on(context, live, steps=steps, to=to)
            if not plan.ways:
                return BatchResult((), context.ledger(live).fingerprint(), ()), None
            applied = [entry.tag for entry in plan.resolution.applied]
            newest = plan.ways[0].applied.tag
            backup = transaction.back_up(before=f"down-{newest}", applied=applied)
            with scratch_copy(backup) as copy, closing(open_scratch(copy)) as scratch:
                context.prepare(scratch)
                begin(scratch)
                _revert(context, scratch, plan, backup)
            context.checkpoint()
            result = _revert(context, live, plan, backup)
            transaction.commit()
        for step in result.steps:
            context.emit("migration.reverted", **step.as_fields())
    return result, backup


def go_back_on_copy(context: GuardContext, history: Resolution, *, steps: int) -> None:
    """Revert migrations in `context.database`, a copy that may be lost.

    For dev mode's rewind, whose folder has changed by now: `history` is what was applied.
    """
    copy = context.database
    with translated_errors(copy), closing(open_scratch(copy)) as scratch:
        context.prepare(scratch)
        begin(scratch)
        _revert(
            context,
            scratch,
            _plan(context, context.ledger(scratch), history, steps=steps, to=None),
            None,
        )
        commit(scratch)


def _revert(
    context: GuardContext, connection: Connection, plan: DownPlan, backup: Backup | None
) -> BatchResult:
    """Run the down files and verify the result, inside the caller's transaction."""
    before = count_rows(connection)
    ledger = context.ledger(connection)
    ledger.ensure()
    steps = revert(
        ledger,
        plan.ways,
        backup=backup.name if backup else None,
        rebuilds=watch_rebuilds(context, connection),
        run=context,
    )
    changes = verify(connection, before, steps)
    verify_dependents(connection, before, steps, lost=False)
    now = inspect(connection)
    differences = compare(plan.expected, now)
    if differences:
        raise VerificationFailed(
            f"After the way back of {steps[-1].tag} the schema is not what it was before it:"
            f" {differences[0]}"
            + (f" (and {len(differences) - 1} more)." if len(differences) > 1 else "."),
            hint=f"Correct {plan.ways[-1].migration.down_name}; the database is unchanged.",
            differences=[str(difference) for difference in differences],
        )
    found = ledger.fingerprint()
    ledger.record_fingerprint(found)
    return BatchResult(steps, found, changes)


def _no_way_back(
    context: GuardContext, missing: tuple[Migration, ...], chain: tuple[AppliedMigration, ...]
) -> NoWayBack:
    """Name what is missing, and offer the newest backup from before all migrations to be reverted."""
    tags = {entry.tag for entry in chain}
    backup = next(
        (
            found
            for found in list_backups(context.database, context.backup_folder)
            if not tags & set(found.applied)
        ),
        None,
    )
    first = missing[0]
    hint = f"Write {first.down_name}"
    if backup is None:
        hint += "; there is no backup from before it."
    else:
        cost = _cost(context, backup)
        hint += f", or restore the backup from before it: `db restore {backup.name}`{cost}."
    return NoWayBack(
        f"{first.tag} has no way back: there is no {first.down_name}, in the folder or in the history.",
        hint=hint,
        tags=[migration.tag for migration in missing],
        backup=backup.name if backup else None,
    )


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
