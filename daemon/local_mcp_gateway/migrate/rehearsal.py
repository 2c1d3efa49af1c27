"""Rehearse all that is pending on a scratch database, and find the hazards.

Hazards come from two sources. The statements: a dropped column, a narrower type, a new UNIQUE; judged on
the schema that each migration really met. The rows: tables that have fewer of them after the rehearsal
than before.
"""

from __future__ import annotations

import re
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from local_mcp_gateway.database import UNWATCHED, Phases, Run, begin, commit
from local_mcp_gateway.migrate.apply import Observer
from local_mcp_gateway.migrate.batch import COMPARE_LIMIT_VALUES, apply_batch, find_kept
from local_mcp_gateway.migrate.statements import NAMED, accepted
from local_mcp_gateway.sql import quote

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping

    from local_mcp_gateway.migrate.apply import Step
    from local_mcp_gateway.migrate.batch import BatchResult
    from local_mcp_gateway.migrate.folder import Migration
    from local_mcp_gateway.migrate.ledger import Ledger
    from local_mcp_gateway.migrate.plan import Plan
    from local_mcp_gateway.migrate.rebuilds import DataChange
    from local_mcp_gateway.migrate.statements import Statement
    from local_mcp_gateway.schema import Hazard, Prepare, Schema

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
    def deletes(self) -> bool:
        """Return whether it is of a kind that deletes data."""
        from local_mcp_gateway.schema import DELETING

        return self.hazard.kind in DELETING

    @property
    def accepted(self) -> bool:
        """Return whether the file accepts it."""
        kind = str(self.hazard.kind)
        ways = {kind, accepted(kind, self.hazard.object)}
        return not ways.isdisjoint(self.migration.directives.accept)

    @property
    def directive(self) -> str:
        """Return the line by which the file would accept it."""
        kind = str(self.hazard.kind)
        named = f"{kind} {quote(self.hazard.object)}" if kind in NAMED else kind
        return f"-- guard: accept {named}"


class HazardWatch(Observer):
    """Inspects the schema before and after each migration of a rehearsal that may lose something."""

    def __init__(
        self, plan: Plan, run: Run, migrated: Callable[[sqlite3.Connection, str], None] | None
    ) -> None:
        self.found: list[HazardFinding] = []
        self._run = run
        self._migrated = migrated
        self._migrations = {migration.tag: migration for migration in plan.pending}
        self._begun = 0
        self._migration: Migration | None = None
        self._texts: list[str] = []
        """What the migration has run."""
        self._before: Schema | None = None
        self._known: Schema | None = None
        """The schema after the previous migration, if it was inspected."""

    def before_migration(self, migration: Migration) -> None:
        """Report that a migration begins."""
        self._run.progress(f"rehearse {migration.tag}", self._begun, len(self._migrations))
        self._begun += 1

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
        if changes:
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

    @classmethod
    def of(
        cls,
        plan: Plan,
        scratch: Ledger,
        *,
        migrated: Callable[[sqlite3.Connection, str], None] | None = None,
        in_dev: bool = False,
        compare_limit: int = COMPARE_LIMIT_VALUES,
        untouched: sqlite3.Connection | None = None,
        prepare: Prepare | None = None,
        requires: Callable[[sqlite3.Connection], None] | None = None,
        run: Run = UNWATCHED,
    ) -> Rehearsal:
        """Apply everything pending to a database that nobody else uses and that may be lost.

        `migrated` is called with the tag after each migration, inside its transaction; `untouched` is what
        the database is a copy of. Raises what the live
        run would raise.
        """
        begun = perf_counter()
        watch = HazardWatch(plan, run, migrated)
        run = replace(run, phases=Phases())  # the rehearsal is one phase of the start
        done: list[BatchResult] = []
        while plan.batches:
            begin(scratch.connection, foreign_keys=plan.batches[0].foreign_keys)
            one = apply_batch(
                plan,
                scratch,
                watch=watch,
                in_dev=in_dev,
                compare_limit=compare_limit,
                untouched=None if done else untouched,
                prepare=prepare,
                requires=requires,
                run=run,
            )
            commit(scratch.connection)
            done.append(one)
            plan = plan.after(one)
        return cls(
            steps=tuple(step for one in done for step in one.steps),
            results={one.steps[-1].tag: one for one in done},
            hazards=tuple(watch.found),
            duration_ms=(perf_counter() - begun) * 1000,
        )
