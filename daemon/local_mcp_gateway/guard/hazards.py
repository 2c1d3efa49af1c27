"""What a rehearsal saw go: hazards of the pending migrations, told, and refused where the policy says.

Two sources. The statements: a dropped column, a narrower type, a new UNIQUE; judged on the schema that
each migration really met. The rows: tables that have fewer of them after the rehearsal than before.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from local_mcp_gateway.errors import HazardRefused
from local_mcp_gateway.guard.context import HazardFinding
from local_mcp_gateway.migrate.double_quotes import refuse_double_quoted
from local_mcp_gateway.migrate.statements import split

if TYPE_CHECKING:
    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.database.connections import Connection
    from local_mcp_gateway.guard.context import GuardContext, Plan, Rehearsal
    from local_mcp_gateway.migrate.folder import Migration
    from local_mcp_gateway.migrate.rebuilds import DataChange
    from local_mcp_gateway.migrate.statements import Statement
    from local_mcp_gateway.schema import Schema

# Only what takes away or narrows can lose something. Inspecting a large schema costs, so a migration
# that only creates and adds is not looked at: a thousand of those would take a minute.
_TAKES_AWAY = re.compile(
    r"(?:^|;|breakpoint)\s*(?:DROP|DELETE|REPLACE|UPDATE|WITH|INSERT\s+OR\s+REPLACE)\b"
    r"|\bALTER\s+TABLE\b[^;]*\b(?:DROP|RENAME)\b"
    r"|\bCREATE\s+UNIQUE\b",
    re.IGNORECASE | re.MULTILINE,
)


class HazardWatch:
    """Looks at the schema before and after each migration of a rehearsal that may lose something."""

    def __init__(self, connection: Connection) -> None:
        self.found: list[HazardFinding] = []
        self._connection = connection
        self._migration: Migration | None = None
        self._before: Schema | None = None
        self._known: Schema | None = None
        """The schema after the previous migration, where that was looked at."""

    def before_statement(
        self, connection: Connection, migration: Migration, statement: Statement
    ) -> None:
        """Refuse text that would be taken for a string, and remember the schema of a new migration."""
        refuse_double_quoted(connection, migration, statement)
        if migration is not self._migration:
            self._migration = migration
            self._before = None
            if _TAKES_AWAY.search(migration.sql):
                from local_mcp_gateway.schema import inspect  # most migrations only add

                self._before = self._known or inspect(connection)
            self._known = None

    def after_migration(self) -> None:
        """Judge the migration that has just run."""
        if self._migration is None or self._before is None:
            return
        from local_mcp_gateway.schema import inspect
        from local_mcp_gateway.schema.hazards import hazards_of

        statements = [statement.text for statement in split(self._migration.sql)]
        self._known = inspect(self._connection)
        hazards = hazards_of(statements, self._before, self._known)
        self.found += [HazardFinding(self._migration.tag, hazard) for hazard in hazards]
        self._before = None

    def data_changed(self, changes: tuple[DataChange, ...]) -> None:
        """Add what one transaction's comparison of rows found; it replaces the mere possibility."""
        if changes:
            from local_mcp_gateway.schema.model import Hazard, HazardKind
        for change in changes:
            hazard = Hazard(HazardKind(change.kind), change.object, change.message)
            place = (hazard.kind, hazard.object)
            self.found = [f for f in self.found if (f.hazard.kind, f.hazard.object) != place]
            self.found.append(HazardFinding(change.tag, hazard))


def report_hazards(
    context: GuardContext, plan: Plan, rehearsal: Rehearsal, backup: Backup | None
) -> None:
    """Tell each hazard and where the backup is; raise HazardRefused if the policy wants it accepted."""
    for found in rehearsal.hazards:
        context.emit(
            "guard.hazard_found",
            tag=found.tag,
            kind=str(found.hazard.kind),
            object=found.hazard.object,
            message=found.hazard.message,
            backup=str(backup.path) if backup else None,
        )
    if context.policy.destructive != "refuse":
        return
    from local_mcp_gateway.schema.model import DELETING

    accepting = {m.tag: m.directives.accept for m in plan.pending}
    names = {m.tag: m.name for m in plan.pending}
    for found in rehearsal.hazards:
        kind = found.hazard.kind
        if kind in DELETING and str(kind) not in accepting.get(found.tag, ()):
            raise HazardRefused(
                f"{found.tag} is not accepted: {found.hazard.message}",
                hint=f"Read {names[found.tag]}; if the loss is meant, put `-- guard: accept {kind}`"
                " into its first line.",
                tag=found.tag,
                kind=str(kind),
                object=found.hazard.object,
            )
