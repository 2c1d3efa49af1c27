"""The way back, guarded like the way forward: lock → hold → backup → rehearse → revert → verify.

What has to come out is known beforehand: the schema that the remaining migrations make of an empty
database. Anything else is refused and rolled back. Where no way back exists, the restore that would
do it is offered with what it would cost, never done.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from local_mcp_gateway.backup import create_backup, list_backups, require_room, scratch_copy, sweep
from local_mcp_gateway.backup.losses import losses
from local_mcp_gateway.database.connect import (
    begin_immediate,
    open_migration,
    open_scratch,
    reading,
)
from local_mcp_gateway.database.faults import explained
from local_mcp_gateway.database.integrity import probe
from local_mcp_gateway.database.lock import DatabaseLock
from local_mcp_gateway.errors import (
    DriftRefused,
    GatewayError,
    HistoryRefused,
    NoWayBack,
    ProblemCode,
    UsageProblem,
    VerificationFailed,
)
from local_mcp_gateway.guard.drift import find_drift
from local_mcp_gateway.guard.hold import commit, settle
from local_mcp_gateway.guard.values import Done
from local_mcp_gateway.migrate.down import WayBack, plan_down, revert, ways_back
from local_mcp_gateway.migrate.folder import read_folder
from local_mcp_gateway.migrate.history import applied_downs
from local_mcp_gateway.migrate.ledger import GUARD_TABLES, ensure_ledger, read_ledger
from local_mcp_gateway.migrate.replay import replay
from local_mcp_gateway.migrate.resolve import resolve
from local_mcp_gateway.migrate.seals import seal, text_fingerprint
from local_mcp_gateway.migrate.statements import split
from local_mcp_gateway.migrate.verify import survey, verify
from local_mcp_gateway.schema import compare, inspect
from local_mcp_gateway.schema.hazards import hazards_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.database.connect import Connection
    from local_mcp_gateway.guard.attempt import Attempt
    from local_mcp_gateway.migrate.folder import Migration
    from local_mcp_gateway.migrate.resolve import AppliedMigration, Resolution
    from local_mcp_gateway.schema import Schema
    from local_mcp_gateway.schema.hazard import Hazard

# What is pending, or stands beside the journal, has nothing to do with going back.
_HARMLESS = frozenset({ProblemCode.OUT_OF_ORDER, ProblemCode.UNJOURNALED, ProblemCode.DUPLICATE})

_COMPARISON_LIMIT_S = 10.0


@dataclass(frozen=True, slots=True)
class DownPlan:
    """What going back would do."""

    resolution: Resolution
    ways: tuple[WayBack, ...]
    """Newest first."""
    expected: Schema
    """Of the migrations that remain."""
    found: Schema
    hazards: tuple[Hazard, ...]


def plan_way_back(
    attempt: Attempt, connection: Connection, *, steps: int | None, to: str | None
) -> DownPlan:
    """Work out the way back; raises HistoryRefused, DriftRefused, NoWayBack or UsageProblem."""
    resolution = resolve(read_folder(attempt.migrations), read_ledger(connection))
    return _plan(attempt, connection, resolution, steps=steps, to=to)


def _plan(
    attempt: Attempt,
    connection: Connection,
    resolution: Resolution,
    *,
    steps: int | None,
    to: str | None,
) -> DownPlan:
    problems = [problem for problem in resolution.problems if problem.code not in _HARMLESS]
    if problems:
        raise HistoryRefused(problems)
    chain = plan_down(resolution.applied, steps=steps, to=to)
    ways, missing = ways_back(chain, applied_downs(connection, [entry.tag for entry in chain]))
    if missing:
        raise _no_way_back(attempt, missing, chain)
    found = inspect(connection)
    drift = find_drift(connection, resolution, attempt.prepare)
    if drift and attempt.policy.drift != "warn":
        raise DriftRefused(
            f"The schema of {attempt.database} was changed outside of its migrations: {drift[0]}.",
            drift=[str(difference) for difference in drift],
        )
    remaining = resolution.applied[: len(resolution.applied) - len(chain)]
    with closing(
        replay((entry.migration for entry in remaining), prepare=attempt.prepare, past=True)
    ) as memory:
        expected = inspect(memory)
    statements = [statement.text for way in ways for statement in split(way.sql)]
    return DownPlan(resolution, ways, expected, found, hazards_of(statements, found, expected))


def look_back(attempt: Attempt, *, steps: int | None, to: str | None) -> DownPlan:
    """Plan the way back without any lock, to show it before it is confirmed."""
    with reading(attempt.database) as reader:
        return plan_way_back(attempt, reader, steps=steps, to=to)


def go_back(
    attempt: Attempt, *, steps: int | None, to: str | None, lock_timeout_s: float = 0.0
) -> tuple[Done, Backup | None]:
    """Take migrations back, all or nothing; raises with the database as it was."""
    with (
        DatabaseLock(attempt.database, timeout_s=lock_timeout_s, stop=attempt.stop) as lock,
        explained(attempt.database),
    ):
        sweep(attempt.database, attempt.backup_folder)
        if (
            probe(attempt.database, quick_check_limit_s=attempt.policy.quick_check_limit_s).state
            == "new"
        ):
            raise UsageProblem(
                f"{attempt.database} has no applied migrations.", hint="See `db status`."
            )
        done, backup = _held(attempt, partial(plan_way_back, attempt, steps=steps, to=to))
        lock.record_clean_stop()
    return done, backup


def go_back_on_copy(attempt: Attempt, history: Resolution, *, steps: int) -> None:
    """Take migrations back in `attempt.database`, a copy that may be lost.

    For dev mode's rewind, whose folder says something else by now: `history` is what was applied.
    """
    copy = attempt.database
    with closing(open_scratch(copy)) as scratch:
        attempt.prepare(scratch)
        begin_immediate(scratch, copy)
        _revert(attempt, scratch, _plan(attempt, scratch, history, steps=steps, to=None), None)
        scratch.execute("COMMIT")


def _held(attempt: Attempt, look: Callable[[Connection], DownPlan]) -> tuple[Done, Backup | None]:
    require_room(attempt.database, attempt.backup_folder)
    with closing(open_migration(attempt.database)) as live:
        attempt.prepare(live)
        begin_immediate(live, attempt.database)
        try:
            plan = look(live)
            if not plan.ways:
                return Done((), text_fingerprint(live), ()), None
            backup = _back_up(attempt, plan, text_fingerprint(live))
            with scratch_copy(backup) as copy, closing(open_scratch(copy)) as scratch:
                attempt.prepare(scratch)
                begin_immediate(scratch, copy)
                _revert(attempt, scratch, plan, backup)
            attempt.checkpoint()
            done = _revert(attempt, live, plan, backup)
            attempt.checkpoint()
            commit(attempt, live)
        finally:
            if live.in_transaction:
                live.execute("ROLLBACK")
    settle(attempt, Done((), done.fingerprint, ()), backup)
    for step in done.steps:
        attempt.emit("migration.reverted", **step.as_fields())
    return done, backup


def _back_up(attempt: Attempt, plan: DownPlan, fingerprint: str) -> Backup:
    newest = plan.ways[0].applied.tag
    return create_backup(
        attempt.database,
        folder=attempt.backup_folder,
        before=f"down-{newest}",
        fingerprint=fingerprint,
        applied=[entry.tag for entry in plan.resolution.applied],
        program_version=attempt.policy.program_version,
        progress=lambda done, total: attempt.progress("backup", done, total),
        stop=attempt.stop,
    )


def _revert(
    attempt: Attempt, connection: Connection, plan: DownPlan, backup: Backup | None
) -> Done:
    """Run the ways back and verify them, inside the caller's transaction."""
    before = survey(connection)
    ensure_ledger(connection)
    steps = revert(
        connection,
        plan.ways,
        backup=backup.name if backup else None,
        program_version=attempt.policy.program_version,
        stop=attempt.stop,
    )
    losses = verify(connection, before, steps)
    now = inspect(connection)
    differences = compare(plan.expected, now)
    if differences:
        raise VerificationFailed(
            f"After the way back of {steps[-1].tag} the schema is not what it was before it:"
            f" {differences[0]}"
            + (f" (and {len(differences) - 1} more)." if len(differences) > 1 else "."),
            hint=f"Correct {plan.ways[-1].migration.down_name}; the database is as it was.",
            differences=[str(difference) for difference in differences],
        )
    found = text_fingerprint(connection)
    seal(connection, found)
    return Done(steps, found, losses)


def _no_way_back(
    attempt: Attempt, missing: tuple[Migration, ...], chain: tuple[AppliedMigration, ...]
) -> NoWayBack:
    """Name what is missing, and offer the newest backup from before all that is to be taken back."""
    tags = {entry.tag for entry in chain}
    backup = next(
        (
            found
            for found in list_backups(attempt.database, attempt.backup_folder)
            if not tags & set(found.applied)
        ),
        None,
    )
    first = missing[0]
    hint = f"Write {first.down_name}"
    if backup is None:
        hint += "; there is no backup from before it."
    else:
        cost = _cost(attempt, backup)
        hint += f", or restore the backup from before it: `db restore {backup.name}`{cost}."
    return NoWayBack(
        f"{first.tag} has no way back: there is no {first.down_name}, in the folder or in the history.",
        hint=hint,
        tags=[migration.tag for migration in missing],
        backup=backup.name if backup else None,
    )


def _cost(attempt: Attempt, backup: Backup) -> str:
    """Say what a restore would lose, as far as both can be read."""
    try:
        lost = losses(
            attempt.database, backup.path, ignored=GUARD_TABLES, limit_s=_COMPARISON_LIMIT_S
        )
    except GatewayError:
        return ""
    if not lost:
        return " (nothing was written since)"
    return f" (it would lose what was written since: {'; '.join(map(str, lost))})"
