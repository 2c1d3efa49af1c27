"""Apply a batch of migrations: count, run, verify, record. And rehearse all batches on a scratch database.

The rehearsal and the live run share `apply_batch`, which neither begins nor commits a transaction: the
caller decides after it has seen the result.

A rehearsal finds the hazards, from two sources. The statements: a dropped column, a narrower type, a new
UNIQUE; judged on the schema that each migration really met. The rows: tables that have fewer of them
after the rehearsal than before.
"""

from __future__ import annotations

import re
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple, cast

from local_mcp_gateway.database import UNWATCHED, Phases, Run, begin, commit
from local_mcp_gateway.errors import HazardRefused, MigrationFailed, VerificationFailed
from local_mcp_gateway.migrate.apply import Observer, run_batch
from local_mcp_gateway.migrate.history import APPLIED_IN_DEV
from local_mcp_gateway.migrate.options import DEFAULT_OPTIONS
from local_mcp_gateway.migrate.statements import accepted, accepting_line, may_rebuild
from local_mcp_gateway.migrate.verify import (
    count_rows,
    keep_sequences,
    verify,
    verify_dependents,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Mapping

    from local_mcp_gateway.migrate.apply import Step
    from local_mcp_gateway.migrate.folder import Migration
    from local_mcp_gateway.migrate.ledger import Ledger
    from local_mcp_gateway.migrate.options import MigrationOptions
    from local_mcp_gateway.migrate.plan import Plan
    from local_mcp_gateway.migrate.rebuild_checks import DataChange
    from local_mcp_gateway.migrate.statements import Statement
    from local_mcp_gateway.schema import Hazard, Schema

    Severity = Callable[[str], str]
    """What a hazard of this kind does: "ignore", "warn" or "refuse"."""


class BatchResult(NamedTuple):
    """What one transaction did; it may still be rolled back."""

    steps: tuple[Step, ...]
    fingerprint: str
    matches_migrations: bool
    """Whether the schema is what the migrations make, and nothing else is in it."""
    changes: tuple[DataChange, ...] = ()
    """Rows and values that the statements removed on purpose."""


def apply_batch(
    plan: Plan,
    ledger: Ledger,
    options: MigrationOptions = DEFAULT_OPTIONS,
    *,
    backup: str | None = None,
    rehearsed: BatchResult | None = None,
    watch: HazardWatch | None = None,
    untouched: Callable[[], sqlite3.Connection] | None = None,
    run: Run = UNWATCHED,
) -> BatchResult:
    """Apply the plan's next batch and verify it, inside the transaction that the caller has begun.

    `rehearsed` is what the same batch did in a rehearsal: the schema must be the same, and the checks are
    not repeated. `watch` observes a rehearsal; without one, `backup` is the name of the backup that is there,
    and what would be refused with rows is only reported without it: the database is new, and the folder may
    be old and applied elsewhere, where fixing a file would count as an edit. `untouched` opens a database
    with the content from before the batch, where rows are counted if need be. Raises MigrationFailed,
    ForbiddenStatement, VerificationFailed, DoubleQuotedString, DiskProblem or Interrupted.
    """
    connection = ledger.connection
    run.phases.begin("verify")
    run.progress("count", 0, 0)
    before = count_rows(connection, untouched)
    compares = not before.is_new and rehearsed is None
    rebuilds = None
    if compares and may_rebuild("\n".join([m.sql for m in plan.batches[0].migrations])):
        from local_mcp_gateway.migrate.rebuilds import watch_rebuilds

        earlier = [entry.migration.sql for entry in plan.applied]
        rebuilds = watch_rebuilds(connection, options.compare_limit_values, run, earlier)
    if watch is not None:
        observer: Observer = watch
    else:
        observer = Observer() if rehearsed else _Unrehearsed(run, refuse=backup is not None)
        observer.total = len(plan.batches[0].migrations)
    steps = run_batch(
        plan.batches[0],
        ledger,
        backup=backup,
        event=APPLIED_IN_DEV if options.journal_new_files else "applied",
        is_v1=plan.folder.is_v1,
        observer=observer,
        rebuilds=rebuilds,
        rehearsed=() if rehearsed is None else rehearsed.steps,
        run=run,
    )
    run.phases.begin("verify")
    run.progress("result", 0, 0)
    keep_sequences(connection, before.sequences, steps)
    changes = verify(connection, before, steps)
    if before.is_new:
        _report_broken(connection, steps[-1].tag, run)
    if compares:
        verify_dependents(connection, before, steps)
    if rebuilds is not None:
        changes += tuple(rebuilds.changed)
    if watch is not None and changes:
        watch.data_changed(changes)
    if options.requires is not None and len(plan.batches) == 1:
        options.requires(connection)
    matches_migrations = (
        plan.makes(connection, before.objects, options.prepare)
        if rehearsed is None
        else rehearsed.matches_migrations
    )
    fingerprint = ledger.fingerprint()
    if rehearsed is not None and rehearsed.fingerprint != fingerprint:
        raise VerificationFailed(
            f"After {steps[-1].tag} the live schema differs from the rehearsed one.",
            hint="The migration depends on something besides the data (time, chance): rewrite it.",
        )
    if matches_migrations:
        ledger.record_fingerprint(fingerprint)
    return BatchResult(steps, fingerprint, matches_migrations, changes)


def find_kept(connection: sqlite3.Connection, statement: Statement) -> Hazard | None:
    """Return the hazard of an object that the statement, about to run, leaves as it is."""
    if "EXISTS" not in statement.text.upper():
        return None
    from local_mcp_gateway.schema import kept_instead  # few migrations need it

    return kept_instead(connection, statement.text)


def unclosed(migration: Migration, line: int) -> MigrationFailed:
    """Return the refusal of a file with statements in a comment that never ends: they would not run."""
    return MigrationFailed(
        f"{migration.name}, line {line}: a comment begins here and never ends, so the statements after it"
        " would not run.",
        hint="End it with `*/`, or take it out.",
        tag=migration.tag,
        file=migration.name,
        line=line,
    )


def _report_broken(connection: sqlite3.Connection, tag: str, run: Run) -> None:
    """Report what cannot run in a new database: an old folder may have had the same fault elsewhere."""
    from local_mcp_gateway.migrate.broken import find_broken

    for broken in find_broken(connection):
        _report(run, tag, "cannot_run", broken.name, f"{broken.sentence}.")


def _report(run: Run, tag: str, kind: str, name: str, message: str) -> None:
    run.emit("guard.hazard_found", tag=tag, kind=kind, object=name, message=message, backup=None)


class _Unrehearsed(Observer):
    """Finds what a rehearsal would have found: double-quoted strings, kept objects."""

    def __init__(self, run: Run, *, refuse: bool) -> None:
        self._run = run
        self._refuse = refuse

    def found_unclosed(self, migration: Migration, line: int) -> None:
        """Refuse it, or report it."""
        found = unclosed(migration, line)
        if self._refuse:
            raise found
        _report(self._run, migration.tag, "unclosed_comment", migration.name, found.message)

    def before_statement(
        self, connection: sqlite3.Connection, migration: Migration, statement: Statement
    ) -> None:
        """Raise DoubleQuotedString, or report it, and what an IF NOT EXISTS keeps."""
        kept = find_kept(connection, statement)
        if kept is not None:
            _report(self._run, migration.tag, str(kept.kind), kept.object, kept.message)
        if '"' not in statement.text:
            return
        from local_mcp_gateway.migrate.double_quotes import ACCEPTED, double_quoted

        found = double_quoted(connection, migration, statement)
        if found is None:
            return
        if self._refuse:
            raise found
        name = cast("list[str]", found.data["names"])[0]
        _report(self._run, migration.tag, ACCEPTED, name, found.message)


# Only statements that remove or narrow can lose something. Inspecting a large schema costs, so a
# migration that only creates and adds is skipped: a thousand of those would take a minute.
_TAKES_AWAY = re.compile(
    r"(?:^|;|breakpoint)\s*(?:DROP|DELETE|REPLACE|UPDATE|WITH|INSERT\s+OR\s+REPLACE)\b"
    r"|\bALTER\s+TABLE\b[^;]*\b(?:DROP|RENAME|ALTER)\b"
    r"|\bCREATE\s+UNIQUE\b",
    re.IGNORECASE | re.MULTILINE,
)


class HazardFinding(NamedTuple):
    """A hazard, and the migration that has it."""

    migration: Migration
    hazard: Hazard

    @property
    def tag(self) -> str:
        """Return the tag of the migration."""
        return self.migration.tag

    @property
    def accepted(self) -> bool:
        """Return whether the file accepts it."""
        kind = str(self.hazard.kind)
        ways = {kind, accepted(kind, self.hazard.object)}
        return not ways.isdisjoint(self.migration.directives.accept)

    @property
    def directive(self) -> str:
        """Return the line by which the file would accept it."""
        return accepting_line(self.hazard.kind, self.hazard.object)


def refusal(findings: Iterable[HazardFinding], severity: Severity) -> HazardRefused | None:
    """Return the refusal of the first hazard that the policy wants accepted, and its file does not accept."""
    for found in findings:
        if severity(found.hazard.kind) == "refuse" and not found.accepted:
            return HazardRefused(
                f"{found.tag} is not accepted: {found.hazard.message}",
                hint=f"Read {found.migration.name}; if it is meant, put `{found.directive}`"
                " into its first line.",
                tag=found.tag,
                kind=str(found.hazard.kind),
                object=found.hazard.object,
            )
    return None


class HazardWatch(Observer):
    """Inspects the schema before and after each migration of a rehearsal that may lose something."""

    phase = "rehearse"

    def __init__(
        self,
        plan: Plan,
        journal_mode: str,
        migrated: Callable[[sqlite3.Connection, str], None] | None,
    ) -> None:
        self.total = len(plan.pending)
        self.journal_mode = journal_mode
        self.found: list[HazardFinding] = []
        self._migrated = migrated
        self._migrations = {migration.tag: migration for migration in plan.pending}
        self._migration: Migration | None = None
        self._texts: list[str] = []
        """What the migration has run."""
        self._before: Schema | None = None
        self._known: Schema | None = None
        """The schema after the previous migration, if it was inspected."""

    def found_unclosed(self, migration: Migration, line: int) -> None:
        """Refuse it."""
        raise unclosed(migration, line)

    def before_statement(
        self, connection: sqlite3.Connection, migration: Migration, statement: Statement
    ) -> None:
        """Refuse double-quoted strings, and remember the schema before a new migration."""
        if '"' in statement.text:
            from local_mcp_gateway.migrate.double_quotes import double_quoted

            if (refused := double_quoted(connection, migration, statement)) is not None:
                raise refused
        kept = find_kept(connection, statement)
        if kept is not None:
            self.found.append(HazardFinding(migration, kept))
        if migration is not self._migration:
            self._migration = migration
            self._before, self._texts = None, []
            if _TAKES_AWAY.search(migration.sql):
                from local_mcp_gateway.schema import inspect  # most migrations only add

                self._before = self._known or inspect(connection)
            self._known = None
        self._texts.append(statement.text)

    def after_migration(self, connection: sqlite3.Connection, migration: Migration) -> None:
        """Find the hazards of the migration that has just run."""
        if self._before is not None:
            from local_mcp_gateway.schema import hazards_of, inspect

            self._known = inspect(connection)
            hazards = hazards_of(self._texts, self._before, self._known)
            self.found += [HazardFinding(migration, hazard) for hazard in hazards]
            self._before = None
        if self._migrated is not None:
            self._migrated(connection, migration.tag)

    def data_changed(self, changes: tuple[DataChange, ...]) -> None:
        """Add what one transaction's comparison of rows found; it replaces the mere possibility."""
        from local_mcp_gateway.schema import Hazard, HazardKind

        for change in changes:
            hazard = Hazard(HazardKind(change.kind), change.object, change.message)
            place = (hazard.kind, hazard.object)
            self.found = [f for f in self.found if (f.hazard.kind, f.hazard.object) != place]
            self.found.append(HazardFinding(self._migrations[change.tag], hazard))


class Rehearsal(NamedTuple):
    """What the pending migrations did to a copy."""

    steps: tuple[Step, ...]
    results: Mapping[str, BatchResult]
    """The tag that ends a transaction → what it did."""
    hazards: tuple[HazardFinding, ...]
    duration_ms: float

    def refusal(self, severity: Severity) -> HazardRefused | None:
        """Return the refusal of its first hazard that the policy wants accepted, and its file does not accept."""
        return refusal(self.hazards, severity)

    def noticed(self, severity: Severity) -> Rehearsal:
        """Return it without the hazards that the policy ignores."""
        kept = [one for one in self.hazards if severity(one.hazard.kind) != "ignore"]
        return self._replace(hazards=tuple(kept))

    @classmethod
    def of(
        cls,
        plan: Plan,
        scratch: Ledger,
        options: MigrationOptions = DEFAULT_OPTIONS,
        *,
        migrated: Callable[[sqlite3.Connection, str], None] | None = None,
        untouched: Callable[[], sqlite3.Connection] | None = None,
        journal_mode: str = Observer.journal_mode,
        run: Run = UNWATCHED,
    ) -> Rehearsal:
        """Apply everything pending to a database that nobody else uses and that may be lost.

        `migrated` is called with the tag after each migration, inside its transaction; `untouched` opens
        what the database is a copy of, which has this journal mode. Raises what the live run would raise.
        """
        begun = perf_counter()
        watch = HazardWatch(plan, journal_mode, migrated)
        run = replace(run, phases=Phases())  # the rehearsal is one phase of the start
        done: list[BatchResult] = []
        while plan.batches:
            begin(scratch.connection, foreign_keys=plan.batches[0].foreign_keys)
            one = apply_batch(
                plan,
                scratch,
                options,
                watch=watch,
                untouched=None if done else untouched,
                run=run,
            )
            commit(scratch.connection)
            done.append(one)
            plan = plan.after(one)
        kinds: dict[str, list[str]] = {}
        for found in watch.found:
            kinds.setdefault(found.tag, []).append(str(found.hazard.kind))
        steps: list[Step] = []
        results: dict[str, BatchResult] = {}
        for one in done:
            known = [
                step._replace(hazards=tuple(dict.fromkeys(kinds.get(step.tag, ()))))
                for step in one.steps
            ]
            steps += known
            results[known[-1].tag] = one._replace(steps=tuple(known))
        return cls(
            steps=tuple(steps),
            results=results,
            hazards=tuple(watch.found),
            duration_ms=(perf_counter() - begun) * 1000,
        )
