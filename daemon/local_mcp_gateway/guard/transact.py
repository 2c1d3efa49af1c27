"""One transaction of migrations: apply and verify. The rehearsal and the live run are this code.

Nothing is begun or committed here: the caller decides, after it has looked at what comes back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from local_mcp_gateway.errors import VerificationFailed
from local_mcp_gateway.guard.values import Done
from local_mcp_gateway.migrate.apply import apply_pending
from local_mcp_gateway.migrate.history import APPLIED_IN_DEV
from local_mcp_gateway.migrate.journal import Entry, write_journal
from local_mcp_gateway.migrate.quotes import ACCEPTED, double_quoted, refuse_double_quoted
from local_mcp_gateway.migrate.seals import seal, text_fingerprint
from local_mcp_gateway.migrate.verify import survey, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.database.connect import Connection
    from local_mcp_gateway.guard.attempt import Attempt
    from local_mcp_gateway.guard.report import Phases
    from local_mcp_gateway.guard.values import Plan, Rehearsal
    from local_mcp_gateway.migrate.apply import Inspector, Step
    from local_mcp_gateway.migrate.folder import Migration
    from local_mcp_gateway.migrate.statements import Statement


def transact(
    attempt: Attempt,
    connection: Connection,
    group: Sequence[Migration],
    *,
    backup: Backup | None,
    stamped: bool,
    drifted: bool,
    phases: Phases,
    watch: Inspector | None,
    begun: Callable[[str], None],
    ended: Callable[[str], None] = lambda _tag: None,
) -> Done:
    """Apply one group and verify it, inside the transaction that the caller has begun.

    Raises MigrationFailed, ForbiddenStatement, VerificationFailed, DiskProblem or Interrupted.
    """
    with phases.measured("verify"):
        before = survey(connection)
    event = APPLIED_IN_DEV if attempt.policy.dev else "applied"
    with phases.measured("apply"):
        name = backup.name if backup else None
        version = attempt.policy.program_version
        if group[0].directives.no_transaction:
            # VACUUM refuses to run in a transaction; the ledger row is committed by itself.
            from local_mcp_gateway.migrate.untransacted import apply_untransacted

            connection.execute("ROLLBACK")
            begun(group[0].tag)
            step = apply_untransacted(
                connection,
                group[0],
                backup=name,
                program_version=version,
                event=event,
                stamped=stamped,
                stop=attempt.stop,
            )
            steps: tuple[Step, ...] = (step,)
            connection.execute("BEGIN IMMEDIATE")
        else:
            steps = apply_pending(
                connection,
                group,
                backup=name,
                program_version=version,
                event=event,
                stamped=stamped,
                inspect=watch,
                begun=begun,
                ended=ended,
                stop=attempt.stop,
            )
    with phases.measured("verify"):
        losses = verify(connection, before, steps)
        now = text_fingerprint(connection)
        if not drifted:  # a seal says that the schema is what the migrations make
            seal(connection, now)
    return Done(steps, now, losses)


def _telling(attempt: Attempt) -> Inspector:
    """Return what tells of text in double quotes on a new database, where it is not refused.

    No row is there to copy it into; and the folder may be old, its files applied elsewhere, where
    mending one would read as an edit.
    """

    def tell(connection: Connection, migration: Migration, statement: Statement) -> None:
        found = double_quoted(connection, migration, statement)
        if found is not None:
            attempt.emit(
                "guard.hazard_found",
                tag=migration.tag,
                kind=ACCEPTED,
                object=cast("list[str]", found.data["names"])[0],
                message=found.message,
                backup=None,
            )

    return tell


def apply_live(
    attempt: Attempt,
    live: Connection,
    plan: Plan,
    backup: Backup | None,
    rehearsal: Rehearsal | None,
) -> Done:
    """Apply the plan's next group to the live file; the result has to be the rehearsed one.

    In dev the journal entries of new files are written here, just before the caller's COMMIT: a kill
    between the two leaves a journaled migration that is pending, which the next start applies.
    """
    place = {migration.tag: number for number, migration in enumerate(plan.group)}
    done = transact(
        attempt,
        live,
        plan.group,
        backup=backup,
        stamped=plan.folder.stamped,
        drifted=bool(plan.drift),
        phases=attempt.phases,
        watch=None if rehearsal else refuse_double_quoted if backup else _telling(attempt),
        begun=lambda tag: attempt.progress(f"apply {tag}", place[tag], len(place)),
    )
    with attempt.phases.measured("verify"):
        expected = rehearsal.fingerprints.get(done.steps[-1].tag) if rehearsal else None
        if expected is not None and expected != done.fingerprint:
            raise VerificationFailed(
                f"After {done.steps[-1].tag} the live schema differs from the rehearsed one.",
                hint="The migration depends on something besides the data (time, chance): rewrite it.",
            )
        new = [migration for migration in plan.group if migration.tag in plan.new_files]
        if new:
            entries = [Entry(idx, m.tag, m.when) for idx, m in enumerate(new, plan.next_idx)]
            write_journal(attempt.migrations, entries)
    attempt.emit(
        "guard.verified",
        fingerprint=done.fingerprint,
        rehearsed=rehearsal is not None,
        duration_ms=attempt.phases.ms("verify"),
    )
    attempt.checkpoint()
    return done
