"""Rehearse all pending migrations on a copy of the user's data, and report hazards.

Hazards come from two sources, and are refused if the policy says so. The statements: a dropped column,
a narrower type, a new UNIQUE; judged on the schema that each migration really met. The rows: tables
that have fewer of them after the rehearsal than before.

A start may skip the rehearsal where no row can make a statement fail: CREATE TABLE (not AS SELECT),
CREATE VIEW, CREATE TRIGGER, and ALTER TABLE … ADD COLUMN without a constraint or an expression. None of
them reads an existing row.
"""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING

from local_mcp_gateway.backup import scratch_copy
from local_mcp_gateway.database.connections import open_scratch
from local_mcp_gateway.database.transactions import begin, commit
from local_mcp_gateway.errors import HazardRefused, MigrationFailed
from local_mcp_gateway.guard.apply import find_kept, reading_backup, run_batch
from local_mcp_gateway.guard.context import HazardFinding, Phases, Rehearsal
from local_mcp_gateway.migrate.apply import Observer
from local_mcp_gateway.migrate.double_quotes import refuse_double_quoted
from local_mcp_gateway.migrate.statements import NAMED, accepted
from local_mcp_gateway.sql import quote, tokens

if TYPE_CHECKING:
    from pathlib import Path

    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.database.connections import Connection
    from local_mcp_gateway.guard.context import BatchResult, GuardContext, GuardPolicy, Plan
    from local_mcp_gateway.migrate.folder import Migration
    from local_mcp_gateway.migrate.rebuilds import DataChange
    from local_mcp_gateway.migrate.statements import Statement
    from local_mcp_gateway.schema import HazardKind, Schema

# Only statements that remove or narrow can lose something. Inspecting a large schema costs, so a
# migration that only creates and adds is skipped: a thousand of those would take a minute.
_TAKES_AWAY = re.compile(
    r"(?:^|;|breakpoint)\s*(?:DROP|DELETE|REPLACE|UPDATE|WITH|INSERT\s+OR\s+REPLACE)\b"
    r"|\bALTER\s+TABLE\b[^;]*\b(?:DROP|RENAME)\b"
    r"|\bCREATE\s+UNIQUE\b",
    re.IGNORECASE | re.MULTILINE,
)
_CREATED = frozenset({"TABLE", "VIEW", "TRIGGER"})
_CONSTRAINING = frozenset(
    {"NOT", "CHECK", "GENERATED", "AS", "REFERENCES", "UNIQUE", "PRIMARY", "DEFAULT"}
)


def rehearsal_is_due(context: GuardContext, plan: Plan) -> bool:
    """Return whether the policy wants this plan rehearsed.

    `auto` skips what cannot fail on data; a policy that refuses hazards has to know them first.
    """
    policy = context.policy
    refuses = "refuse" in (policy.destructive, *policy.hazards.values())
    if policy.rehearse == "always" or refuses:
        return True
    return context.policy.rehearse == "auto" and not all(
        is_data_independent(migration) for migration in plan.pending
    )


def is_data_independent(migration: Migration) -> bool:
    """Return whether no row can make any statement of the migration fail."""
    return all(map(_is_harmless, migration.texts))


def _is_harmless(statement: str) -> bool:
    words = [token.upper for token in tokens(statement) if token.kind == "word"]
    if words[:1] == ["CREATE"]:
        kind = next((word for word in words[1:4] if word in _CREATED), None)
        return kind in ("VIEW", "TRIGGER") or (kind == "TABLE" and "SELECT" not in words)
    added = words[:2] == ["ALTER", "TABLE"] and "ADD" in words[2:5]
    return added and not _CONSTRAINING.intersection(words)


def rehearse(context: GuardContext, backup: Backup, plan: Plan) -> Rehearsal:
    """Apply everything pending to a copy of `backup`, with the same checks; remove the copy.

    Raises what the live run would raise; the live file is untouched.
    """
    context.phases.begin("rehearse")
    with scratch_copy(backup) as copy:
        try:
            rehearsal = rehearse_on(context, copy, plan, backup=backup)
        except MigrationFailed as error:
            if not plan.resolution.applied and "already exists" in error.message:
                error.hint = (
                    "This database has tables but no record of migrations:"
                    " take it over with `db adopt`, which finds out how far it is."
                )
            raise
    context.emit(
        "migration.rehearsed",
        migrations=[step.tag for step in rehearsal.steps],
        statements=sum(step.statements for step in rehearsal.steps),
        hazards=len(rehearsal.hazards),
        duration_ms=round(rehearsal.duration_ms, 3),
    )
    context.checkpoint()
    return rehearsal


def rehearse_on(
    context: GuardContext,
    copy: Path,
    plan: Plan,
    watch: HazardWatch | None = None,
    *,
    backup: Backup | None = None,
) -> Rehearsal:
    """Apply everything pending to this file, which nobody else uses and which may be lost.

    `backup`: it is a copy of that one.
    """
    begun = perf_counter()
    on_copy = replace(context, phases=Phases())  # the rehearsal is one phase of the start
    watch = watch or HazardWatch(context, plan)
    done: list[BatchResult] = []
    with reading_backup(context, backup) as untouched, closing(open_scratch(copy)) as scratch:
        context.prepare(scratch)
        rest = plan
        while rest.batches:
            begin(scratch, foreign_keys=rest.batches[0].foreign_keys)
            before = None if done else untouched
            one = run_batch(on_copy, scratch, rest, None, watch, untouched=before)
            commit(scratch)
            watch.data_changed(one.changes)
            done.append(one)
            rest = rest.after(one)
    return Rehearsal(
        steps=tuple(step for one in done for step in one.steps),
        fingerprints={one.steps[-1].tag: one.fingerprint for one in done},
        hazards=tuple(watch.found),
        duration_ms=(perf_counter() - begun) * 1000,
    )


class HazardWatch(Observer):
    """Inspects the schema before and after each migration of a rehearsal that may lose something."""

    def __init__(self, context: GuardContext, plan: Plan) -> None:
        self.found: list[HazardFinding] = []
        self._context = context
        self._total = len(plan.pending)
        self._begun = 0
        self._migration: Migration | None = None
        self._before: Schema | None = None
        self._known: Schema | None = None
        """The schema after the previous migration, if it was inspected."""

    def before_migration(self, migration: Migration) -> None:
        """Report that a migration begins."""
        self._context.progress(f"rehearse {migration.tag}", self._begun, self._total)
        self._begun += 1

    def before_statement(
        self, connection: Connection, migration: Migration, statement: Statement
    ) -> None:
        """Refuse double-quoted strings, and remember the schema before a new migration."""
        refuse_double_quoted(connection, migration, statement)
        kept = find_kept(connection, statement)
        if kept is not None:
            self.found.append(HazardFinding(migration.tag, kept))
        if migration is not self._migration:
            self._migration = migration
            self._before = None
            if _TAKES_AWAY.search(migration.sql):
                from local_mcp_gateway.schema import inspect  # most migrations only add

                self._before = self._known or inspect(connection)
            self._known = None

    def after_migration(self, connection: Connection, migration: Migration) -> None:
        """Find the hazards of the migration that has just run."""
        if self._before is None:
            return
        from local_mcp_gateway.schema import hazards_of, inspect

        self._known = inspect(connection)
        hazards = hazards_of(migration.texts, self._before, self._known)
        self.found += [HazardFinding(migration.tag, hazard) for hazard in hazards]
        self._before = None

    def data_changed(self, changes: tuple[DataChange, ...]) -> None:
        """Add what one transaction's comparison of rows found; it replaces the mere possibility."""
        if changes:
            from local_mcp_gateway.schema import Hazard, HazardKind
        for change in changes:
            hazard = Hazard(HazardKind(change.kind), change.object, change.message)
            place = (hazard.kind, hazard.object)
            self.found = [f for f in self.found if (f.hazard.kind, f.hazard.object) != place]
            self.found.append(HazardFinding(change.tag, hazard))


def report_hazards(
    context: GuardContext, plan: Plan, rehearsal: Rehearsal, backup: Backup | None
) -> None:
    """Report each hazard and where the backup is; raise HazardRefused if the policy wants it accepted."""
    accepting = {m.tag: m.directives.accept for m in plan.pending}
    names = {m.tag: m.name for m in plan.pending}
    refused: HazardFinding | None = None
    for found in rehearsal.hazards:
        severity = _severity(context.policy, found.hazard.kind)
        if severity == "ignore":
            continue
        kind = str(found.hazard.kind)
        ways = {kind, accepted(kind, found.hazard.object)}
        if severity == "refuse" and refused is None and not ways & accepting[found.tag]:
            refused = found
        context.emit(
            "guard.hazard_found",
            tag=found.tag,
            kind=str(found.hazard.kind),
            object=found.hazard.object,
            message=found.hazard.message,
            backup=str(backup.path) if backup else None,
        )
    if refused is not None:
        kind = str(refused.hazard.kind)
        how = f"{kind} {quote(refused.hazard.object)}" if kind in NAMED else kind
        raise HazardRefused(
            f"{refused.tag} is not accepted: {refused.hazard.message}",
            hint=f"Read {names[refused.tag]}; if it is meant, put `-- guard: accept {how}`"
            " into its first line.",
            tag=refused.tag,
            kind=kind,
            object=refused.hazard.object,
        )


def _severity(policy: GuardPolicy, kind: HazardKind) -> str:
    """Return what a hazard of this kind does: "ignore", "warn" or "refuse"."""
    from local_mcp_gateway.schema import DELETING

    return policy.hazards.get(kind, policy.destructive if kind in DELETING else "warn")
