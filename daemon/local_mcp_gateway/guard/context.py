"""The values of one guarded run: its policy, its context and its report."""

from __future__ import annotations

from dataclasses import asdict, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from local_mcp_gateway.backup import DEFAULT_KEEP_ASIDE, Retention
from local_mcp_gateway.database import FULL_CHECK_BYTES, Run
from local_mcp_gateway.frozen import frozen
from local_mcp_gateway.migrate import Ledger, MigrationOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.database import Connection
    from local_mcp_gateway.migrate import Plan, Step
    from local_mcp_gateway.schema import Difference


@frozen
class GuardPolicy(MigrationOptions):
    """How careful one start is. The defaults are the most careful."""

    rehearse: Literal["always", "auto", "never"] = "always"
    destructive: Literal["warn", "refuse"] = "warn"
    """What a migration that deletes data does, unless `hazards` says it."""
    hazards: Mapping[str, str] = field(default_factory=dict)
    """What a hazard does by its kind: "ignore", "warn" (where nothing is said) or "refuse"."""
    drift: Literal["auto", "refuse", "warn"] = "auto"
    """`auto` refuses if something is pending (a manual change may conflict with it), else warns."""
    backup_folder: Path | None = None
    """None: `backups` next to the database's real path."""
    retention: Retention | None = field(default_factory=Retention)
    """Which backups stay after a migration has made another one; None keeps all."""
    quick_check_limit_s: float = 10.0
    full_check_limit_bytes: int = FULL_CHECK_BYTES
    """Maximum size of a database to check in full before and after a change; a larger one gets a quick check."""
    allow_out_of_order: bool = False
    to: str | None = None
    """The last tag to apply; None: all of the folder."""
    keep_aside: int = DEFAULT_KEEP_ASIDE
    """How many databases that dev mode replaced stay next to the new one."""
    fresh: bool = False
    """Begin with a new database where it is empty or missing, though it had content or has backups."""
    program_version: str = ""
    replicate: Callable[[GuardContext, str], int | None] | None = None
    """Called before the first of the pending migrations (its tag) of a database with content; returns the
    transaction by which a replica can bring back the state before it, and raises what forbids the migration."""

    def severity(self, kind: str) -> str:
        """Return what a hazard of this kind does: "ignore", "warn" or "refuse"."""
        from local_mcp_gateway.schema import DELETING  # only what is pending needs it

        return self.hazards.get(kind, self.destructive if kind in DELETING else "warn")


State = Literal["created", "migrated", "current"]


class GuardReport(NamedTuple):
    """The result of a guarded start that succeeded: everything in it is durable."""

    database: Path
    state: State
    applied: tuple[Step, ...]
    backup: Backup | None
    fingerprint: str
    drift: tuple[Difference, ...]
    durations_ms: dict[str, float]

    def as_fields(self) -> dict[str, object]:
        """Return the keys of the canonical log line `guard.ready`."""
        return {
            "database": str(self.database),
            "state": self.state,
            "applied": len(self.applied),
            "backup": str(self.backup.path) if self.backup else None,
            "duration_ms": round(sum(self.durations_ms.values()), 3),
            **{f"{phase}_ms": round(value, 3) for phase, value in self.durations_ms.items()},
        }

    def as_json(self) -> dict[str, object]:
        """Return what `db migrate --json` prints."""
        return {
            "database": str(self.database),
            "state": self.state,
            "applied": [
                {"tag": step.tag, "statements": step.statements, "duration_ms": step.duration_ms}
                for step in self.applied
            ],
            "backup": str(self.backup.path) if self.backup else None,
            "fingerprint": self.fingerprint or None,
            "drift": [asdict(difference) for difference in self.drift],
            "durations_ms": {phase: round(ms, 3) for phase, ms in self.durations_ms.items()},
        }


@frozen
class GuardContext(Run):
    """One run of the guard on a database, or of a command that changes one."""

    database: Path
    migrations: Path
    policy: GuardPolicy = field(default_factory=GuardPolicy)
    serving: bool = False
    """This process has the database open: then only SQLite may open its file, because closing any
    other descriptor of it would drop the POSIX locks of those connections."""

    @cached_property
    def backup_folder(self) -> Path:
        """Return where this database's backups are."""
        return self.policy.backup_folder or self.database.resolve().parent / "backups"

    def ledger(self, connection: Connection) -> Ledger:
        """Return the ledger of the database on this connection."""
        return Ledger(connection, program_version=self.policy.program_version)


class Planner(Protocol):
    """Makes the plan of a run: `make_plan`, or dev mode's, which rewinds first."""

    def __call__(self, context: GuardContext, *, fresh: bool) -> Plan:
        """Make it; `fresh`: the database is empty. Raises what prevents the run."""
        ...
