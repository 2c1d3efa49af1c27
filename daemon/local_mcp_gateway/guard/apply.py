"""One transaction of migrations: apply and verify. The rehearsal and the live run are this code.

Nothing is begun or committed here: the caller decides, after it has looked at what comes back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from local_mcp_gateway.errors import VerificationFailed
from local_mcp_gateway.guard.context import BatchResult
from local_mcp_gateway.migrate.apply import apply_pending
from local_mcp_gateway.migrate.double_quotes import ACCEPTED, double_quoted, refuse_double_quoted
from local_mcp_gateway.migrate.history import APPLIED_IN_DEV
from local_mcp_gateway.migrate.journal import Entry, write_journal
from local_mcp_gateway.migrate.ledger import record_fingerprint, text_fingerprint
from local_mcp_gateway.migrate.rebuilds import Rebuilds
from local_mcp_gateway.migrate.validate import find_broken
from local_mcp_gateway.migrate.verify import count_rows, verify, verify_dependents

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.database.connections import Connection
    from local_mcp_gateway.guard.context import GuardContext, Phases, Plan, Rehearsal
    from local_mcp_gateway.migrate.apply import Inspector, Step
    from local_mcp_gateway.migrate.folder import Migration
    from local_mcp_gateway.migrate.statements import Statement


def run_batch(
    context: GuardContext,
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
    rehearsed: bool = False,
) -> BatchResult:
    """Apply one group and verify it, inside the transaction that the caller has begun.

    What a rehearsal of the same group has found out about values and schema is not looked for again.
    Raises MigrationFailed, ForbiddenStatement, VerificationFailed, DiskProblem or Interrupted.
    """
    with phases.measured("verify"):
        before = count_rows(connection)
    rebuilds = None
    if before.rows and not rehearsed:
        rebuilds = watch_rebuilds(context, connection)
    event = APPLIED_IN_DEV if context.policy.journal_new_files else "applied"
    with phases.measured("apply"):
        name = backup.name if backup else None
        version = context.policy.program_version
        if group[0].directives.no_transaction:
            # VACUUM refuses to run in a transaction; the ledger row is committed by itself.
            from local_mcp_gateway.database.transactions import outside_transaction
            from local_mcp_gateway.migrate.no_transaction import apply_without_transaction

            begun(group[0].tag)
            with outside_transaction(connection):
                step = apply_without_transaction(
                    connection,
                    group[0],
                    backup=name,
                    program_version=version,
                    event=event,
                    stamped=stamped,
                    stop=context.stop,
                )
            steps: tuple[Step, ...] = (step,)
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
                stop=context.stop,
                rebuilds=rebuilds,
            )
    with phases.measured("verify"):
        changes = verify(connection, before, steps)
        if not before.rows:
            _tell_broken(context, connection, steps)
        elif not rehearsed:
            verify_dependents(connection, before, steps)
        if rebuilds is not None:
            changes += tuple(rebuilds.changed)
        now = text_fingerprint(connection)
        if not drifted:  # a seal says that the schema is what the migrations make
            record_fingerprint(connection, now)
    return BatchResult(steps, now, changes)


def watch_rebuilds(context: GuardContext, connection: Connection) -> Rebuilds:
    """Return what compares rebuilt tables, and tells of those that are too large for it."""
    return Rebuilds(
        connection,
        limit=context.policy.compare_limit_values,
        not_compared=lambda table, rows: context.emit(
            "guard.values_not_compared", table=table, rows=rows
        ),
    )


def _tell_broken(context: GuardContext, connection: Connection, steps: Sequence[Step]) -> None:
    """Tell of what cannot run in a new database: its folder may be old, and runs so elsewhere."""
    for broken in find_broken(connection):
        context.emit(
            "guard.hazard_found",
            tag=steps[-1].tag,
            kind="cannot_run",
            object=broken.name,
            message=f"{broken.sentence}.",
            backup=None,
        )


def _telling(context: GuardContext) -> Inspector:
    """Return what tells of text in double quotes on a new database, where it is not refused.

    No row is there to copy it into; and the folder may be old, its files applied elsewhere, where
    mending one would read as an edit.
    """

    def tell(connection: Connection, migration: Migration, statement: Statement) -> None:
        found = double_quoted(connection, migration, statement)
        if found is not None:
            context.emit(
                "guard.hazard_found",
                tag=migration.tag,
                kind=ACCEPTED,
                object=cast("list[str]", found.data["names"])[0],
                message=found.message,
                backup=None,
            )

    return tell


def apply_live(
    context: GuardContext,
    live: Connection,
    plan: Plan,
    backup: Backup | None,
    rehearsal: Rehearsal | None,
) -> BatchResult:
    """Apply the plan's next group to the live file; the result has to be the rehearsed one.

    In dev the journal entries of new files are written here, just before the caller's COMMIT: a kill
    between the two leaves a journaled migration that is pending, which the next start applies.
    """
    place = {migration.tag: number for number, migration in enumerate(plan.group)}
    done = run_batch(
        context,
        live,
        plan.group,
        backup=backup,
        stamped=plan.folder.stamped,
        drifted=bool(plan.drift),
        phases=context.phases,
        watch=None if rehearsal else refuse_double_quoted if backup else _telling(context),
        rehearsed=rehearsal is not None,
        begun=lambda tag: context.progress(f"apply {tag}", place[tag], len(place)),
    )
    with context.phases.measured("verify"):
        expected = rehearsal.fingerprints.get(done.steps[-1].tag) if rehearsal else None
        if expected is not None and expected != done.fingerprint:
            raise VerificationFailed(
                f"After {done.steps[-1].tag} the live schema differs from the rehearsed one.",
                hint="The migration depends on something besides the data (time, chance): rewrite it.",
            )
        new = [migration for migration in plan.group if migration.tag in plan.new_files]
        if new:
            entries = [Entry(idx, m.tag, m.when) for idx, m in enumerate(new, plan.next_idx)]
            write_journal(context.migrations, entries)
    context.emit(
        "guard.verified",
        fingerprint=done.fingerprint,
        rehearsed=rehearsal is not None,
        duration_ms=context.phases.ms("verify"),
    )
    return done
