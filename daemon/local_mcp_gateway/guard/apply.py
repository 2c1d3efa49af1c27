"""Apply one batch of migrations and verify it; the rehearsal and the live run share this code.

Nothing here begins or commits a transaction: the caller decides after it has checked the result.
"""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, cast

from local_mcp_gateway.database.connections import open_immutable
from local_mcp_gateway.errors import ForbiddenStatement, MigrationFailed, VerificationFailed
from local_mcp_gateway.guard.context import BatchResult
from local_mcp_gateway.migrate.apply import Observer, apply_batch
from local_mcp_gateway.migrate.dependents import find_broken
from local_mcp_gateway.migrate.double_quotes import ACCEPTED, double_quoted
from local_mcp_gateway.migrate.journal import Entry, write_journal
from local_mcp_gateway.migrate.ledger import APPLIED_IN_DEV
from local_mcp_gateway.migrate.rebuilds import Rebuilds
from local_mcp_gateway.migrate.verify import count_rows, verify, verify_dependents

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.database.connections import Connection
    from local_mcp_gateway.guard.context import GuardContext, Plan, Rehearsal
    from local_mcp_gateway.migrate.folder import Migration
    from local_mcp_gateway.migrate.statements import Statement
    from local_mcp_gateway.migrate.verify import RowCounts
    from local_mcp_gateway.schema import Hazard


def run_batch(
    context: GuardContext,
    connection: Connection,
    plan: Plan,
    backup: Backup | None,
    observer: Observer,
    *,
    untouched: Connection | None = None,
    rehearsed: bool = False,
) -> BatchResult:
    """Run the plan's next batch and verify it, inside the transaction that the caller has begun.

    `untouched`, if there is one, has the content from before the batch: rows are counted there if need be.
    Checks of values and schema that a rehearsal of the same batch has made are not repeated. Raises
    MigrationFailed, ForbiddenStatement, VerificationFailed, DiskProblem or Interrupted.
    """
    context.phases.begin("verify")
    before = count_rows(connection, untouched)
    compared = bool(before.rows) and not rehearsed
    rebuilds = watch_rebuilds(context, connection) if compared else None
    context.phases.begin("apply")
    ledger = context.ledger(connection)
    steps = apply_batch(
        plan.batches[0],
        ledger,
        backup=backup.name if backup else None,
        event=APPLIED_IN_DEV if context.policy.journal_new_files else "applied",
        stamped=plan.folder.stamped,
        observer=observer,
        rebuilds=rebuilds,
        run=context,
    )
    context.phases.begin("verify")
    changes = verify(connection, before, steps)
    if not before.rows:
        _report_broken(context, connection, steps[-1].tag)
    if rebuilds is not None:
        verify_dependents(connection, before, steps)
        changes += tuple(rebuilds.changed)
    if context.policy.requires is not None and len(plan.batches) == 1:
        context.policy.requires(connection)
    fingerprint = ledger.fingerprint()
    if _is_as_made(context, connection, plan, before):
        ledger.record_fingerprint(fingerprint)
    return BatchResult(steps, fingerprint, changes)


@contextmanager
def reading_backup(context: GuardContext, backup: Backup | None) -> Iterator[Connection | None]:
    """Open the backup that was made just now, which nobody writes to; None where there is none."""
    if backup is None:
        yield None
        return
    with closing(open_immutable(backup.path)) as reader:
        context.prepare(reader)
        yield reader


def _is_as_made(
    context: GuardContext, connection: Connection, plan: Plan, before: RowCounts
) -> bool:
    """Return whether the schema is what the migrations make: a recorded fingerprint says so.

    A database that other tools have made may have tables that an IF NOT EXISTS has left as they are.
    """
    if plan.drift:
        return False
    if plan.resolution.applied or not before.objects:
        return True
    from local_mcp_gateway.migrate.replay import differences_from

    done = {step.tag for step in plan.done}
    earlier = [migration for migration in plan.resolution.pending if migration.tag in done]
    made = [*earlier, *plan.batches[0].migrations]
    try:
        return not differences_from(made, connection, prepare=context.prepare)
    except (MigrationFailed, ForbiddenStatement):
        return False


def watch_rebuilds(context: GuardContext, connection: Connection) -> Rebuilds:
    """Return the comparison of rebuilt tables, which reports tables that are too large for it."""
    return Rebuilds(
        connection,
        limit=context.policy.compare_limit_values,
        not_compared=lambda table, rows: context.emit(
            "guard.values_not_compared", table=table, rows=rows
        ),
    )


def _report_broken(context: GuardContext, connection: Connection, tag: str) -> None:
    """Report what cannot run in a new database: an old folder may have had the same fault elsewhere."""
    for broken in find_broken(connection):
        context.emit(
            "guard.hazard_found",
            tag=tag,
            kind="cannot_run",
            object=broken.name,
            message=f"{broken.sentence}.",
            backup=None,
        )


def apply_live(
    context: GuardContext,
    live: Connection,
    plan: Plan,
    backup: Backup | None,
    rehearsal: Rehearsal | None,
) -> BatchResult:
    """Apply the plan's next batch to the live file; the result must equal the rehearsed one.

    In dev mode the journal entries of new files are written here, just before the caller's COMMIT: a
    kill between the two leaves a journaled migration that is pending, which the next start applies.
    """
    observer = _LiveObserver(context, plan, quotes=not rehearsal, refuse=bool(backup))
    with reading_backup(context, backup) as untouched:
        result = run_batch(
            context,
            live,
            plan,
            backup,
            observer,
            untouched=untouched,
            rehearsed=rehearsal is not None,
        )
    expected = rehearsal.fingerprints.get(result.steps[-1].tag) if rehearsal else None
    if expected is not None and expected != result.fingerprint:
        raise VerificationFailed(
            f"After {result.steps[-1].tag} the live schema differs from the rehearsed one.",
            hint="The migration depends on something besides the data (time, chance): rewrite it.",
        )
    new = [m for m in plan.batches[0].migrations if m.tag in plan.new_files]
    if new:
        entries = [Entry(idx, m.tag, m.when) for idx, m in enumerate(new, plan.next_idx)]
        write_journal(context.migrations, entries)
    context.emit(
        "guard.verified",
        fingerprint=result.fingerprint,
        rehearsed=rehearsal is not None,
        duration_ms=context.phases.ms("verify"),
    )
    return result


def find_kept(connection: Connection, statement: Statement) -> Hazard | None:
    """Return the hazard of an object that the statement, about to run, leaves as it is."""
    if "EXISTS" not in statement.text.upper():
        return None
    from local_mcp_gateway.schema import kept_instead  # few migrations need it

    return kept_instead(connection, statement.text)


class _LiveObserver(Observer):
    """Reports the progress, and checks for double-quoted strings and kept objects where no rehearsal has.

    They are refused where there are rows to copy the text into. On a new database they are only
    reported: the folder may be old and applied elsewhere, where fixing a file would count as an edit.
    """

    def __init__(self, context: GuardContext, plan: Plan, *, quotes: bool, refuse: bool) -> None:
        self._context = context
        self._total = len(plan.batches[0].migrations)
        self._begun = 0
        self._quotes = quotes
        self._refuse = refuse

    def before_migration(self, migration: Migration) -> None:
        """Report that a migration begins."""
        self._context.progress(f"apply {migration.tag}", self._begun, self._total)
        self._begun += 1

    def before_statement(
        self, connection: Connection, migration: Migration, statement: Statement
    ) -> None:
        """Raise DoubleQuotedString, or report it, and what an IF NOT EXISTS keeps."""
        if not self._quotes:
            return
        kept = find_kept(connection, statement)
        if kept is not None:
            self._report(migration, str(kept.kind), kept.object, kept.message)
        found = double_quoted(connection, migration, statement)
        if found is None:
            return
        if self._refuse:
            raise found
        name = cast("list[str]", found.data["names"])[0]
        self._report(migration, ACCEPTED, name, found.message)

    def _report(self, migration: Migration, kind: str, name: str, message: str) -> None:
        self._context.emit(
            "guard.hazard_found",
            tag=migration.tag,
            kind=kind,
            object=name,
            message=message,
            backup=None,
        )
