"""The rehearsal: the whole pending chain on a copy of the user's own data, before the live file."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from local_mcp_gateway.backup import scratch_copy
from local_mcp_gateway.database.connect import begin_immediate, open_scratch
from local_mcp_gateway.guard.report import Phases
from local_mcp_gateway.guard.transact import transact

if TYPE_CHECKING:
    from collections.abc import Mapping

    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.guard.attempt import Attempt
    from local_mcp_gateway.guard.read import Plan
    from local_mcp_gateway.migrate.apply import Step


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What the pending chain did to a copy."""

    steps: tuple[Step, ...]
    fingerprints: Mapping[str, str]
    """The tag that ends a transaction → the schema's fingerprint after it."""
    duration_ms: float


def rehearse(attempt: Attempt, backup: Backup, plan: Plan) -> Rehearsal:
    """Apply everything pending to a copy of `backup`, with the same checks; the copy is removed.

    Raises what the live run would raise; the live file is untouched.
    """
    begun = perf_counter()
    steps: list[Step] = []
    fingerprints: dict[str, str] = {}
    total = len(plan.pending)

    def executed(_event: str, /, **_fields: object) -> None:
        attempt.progress("rehearse", len(steps) + 1, total)

    with (
        attempt.phases.measured("rehearse"),
        scratch_copy(backup) as copy,
        closing(open_scratch(copy)) as scratch,
    ):
        rest = plan
        while rest.pending:
            begin_immediate(scratch, copy)
            done = transact(
                attempt,
                scratch,
                rest.group,
                backup=None,
                stamped=plan.stamped,
                phases=Phases(),  # the rehearsal is one phase; its inner ones are not the start's
                emit=executed,
            )
            scratch.execute("COMMIT")
            steps += done.steps
            fingerprints[done.steps[-1].tag] = done.fingerprint
            rest = rest.after(done)
    spent = (perf_counter() - begun) * 1000
    attempt.emit(
        "migration.rehearsed",
        migrations=[step.tag for step in steps],
        statements=sum(step.statements for step in steps),
        duration_ms=round(spent, 3),
    )
    attempt.checkpoint()
    return Rehearsal(tuple(steps), fingerprints, spent)
