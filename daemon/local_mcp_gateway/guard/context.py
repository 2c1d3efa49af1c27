"""The values of one guarded run: its policy, its context, and the results of its steps."""

from __future__ import annotations

from dataclasses import asdict, field, replace
from time import perf_counter
from typing import TYPE_CHECKING, Literal, Protocol

from local_mcp_gateway.backup.files import DEFAULT_KEEP_ASIDE
from local_mcp_gateway.backup.manifest import Retention
from local_mcp_gateway.database.run import Run
from local_mcp_gateway.database.transactions import FULL_CHECK_BYTES
from local_mcp_gateway.frozen import frozen
from local_mcp_gateway.migrate.ledger import Ledger
from local_mcp_gateway.migrate.sql_functions import Named, register

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.database.connections import Connection
    from local_mcp_gateway.migrate.apply import Batch, Step
    from local_mcp_gateway.migrate.folder import Folder, Migration
    from local_mcp_gateway.migrate.rebuilds import DataChange
    from local_mcp_gateway.migrate.resolve import Resolution
    from local_mcp_gateway.schema import Difference, Hazard


@frozen
class GuardPolicy:
    """How careful one start is. The defaults are the most careful."""

    rehearse: Literal["always", "auto", "never"] = "always"
    destructive: Literal["warn", "refuse"] = "warn"
    """What a migration that deletes data does, unless `hazards` says it."""
    hazards: Mapping[str, str] = field(default_factory=dict)
    """What a hazard does by its kind: "ignore", "warn" (where nothing is said) or "refuse"."""
    drift: Literal["auto", "refuse", "warn"] = "auto"
    """`auto` refuses if something is pending (a manual change may conflict with it), else warns."""
    backup_folder: Path | None = None
    """None: `backups` beside the database's real path."""
    retention: Retention | None = field(default_factory=Retention)
    """Which backups stay after a migration has made another one; None keeps all."""
    quick_check_limit_s: float = 10.0
    full_check_limit_bytes: int = FULL_CHECK_BYTES
    """Maximum size of a database to check in full before and after a change; a larger one gets a quick check."""
    compare_limit_values: int = 2_000_000
    """Maximum values (rows × columns) of a rebuilt table to compare; in a larger one only rows are counted."""
    allow_out_of_order: bool = False
    to: str | None = None
    """The last tag to apply; None: all of the folder."""
    journal_new_files: bool = False
    """For dev mode: a `.sql` without a journal entry is journaled after its rehearsal, before COMMIT,
    and the history marks its migrations as ones that dev mode may revert."""
    keep_aside: int = DEFAULT_KEEP_ASIDE
    """How many databases that dev mode replaced stay beside the new one."""
    fresh: bool = False
    """Begin with a new database where it is empty or missing, though it had content or has backups."""
    program_version: str = ""
    requires: Callable[[Connection], None] | None = None
    """Called with the migrated database before COMMIT; raises if the program could not serve it."""
    functions: Named = field(default_factory=dict)
    """SQL functions that migrations may call, by name: callables, or "package.module:function"."""
    collations: Named = field(default_factory=dict)
    """Collations that migrations may use, given likewise."""
    extensions: tuple[str, ...] = ()
    """Files of SQLite extensions that migrations may use."""


State = Literal["created", "migrated", "current"]


@frozen
class GuardReport:
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


class Phases:
    """How long each phase of a run took, in milliseconds, in the order in which they began."""

    def __init__(self) -> None:
        self._spent: dict[str, float] = {}
        self._now = ""
        self._since = perf_counter()

    def begin(self, phase: str) -> None:
        """End the previous phase, and begin or resume this one."""
        now = perf_counter()
        if self._now:
            self._spent[self._now] += (now - self._since) * 1000
        self._now, self._since = phase, now
        self._spent.setdefault(phase, 0.0)

    @property
    def durations_ms(self) -> dict[str, float]:
        """Return the milliseconds of each phase so far."""
        self.begin(self._now)
        return dict(self._spent)

    def ms(self, phase: str) -> float:
        """Return the milliseconds of one phase so far, for its log event."""
        return round(self.durations_ms[phase], 3)


@frozen
class GuardContext(Run):
    """One run of the guard on a database, or of a command that changes one."""

    database: Path
    migrations: Path
    policy: GuardPolicy = field(default_factory=GuardPolicy)
    phases: Phases = field(default_factory=Phases)
    serving: bool = False
    """This process has the database open: then only SQLite may open its file, because closing any
    other descriptor of it would drop the POSIX locks of those connections."""

    @property
    def backup_folder(self) -> Path:
        """Return where this database's backups are."""
        return self.policy.backup_folder or self.database.resolve().parent / "backups"

    def prepare(self, connection: Connection) -> None:
        """Register what migrations may use; raises ConfigProblem."""
        policy = self.policy
        register(connection, policy.functions, policy.collations, policy.extensions)

    def ledger(self, connection: Connection) -> Ledger:
        """Return the ledger of the database on this connection."""
        return Ledger(connection, program_version=self.policy.program_version)


@frozen
class Plan:
    """What one read of folder and database found to do."""

    folder: Folder
    resolution: Resolution
    pending: tuple[Migration, ...]
    """What this attempt will apply, in order: all that is pending, or up to `--to`."""
    batches: tuple[Batch, ...]
    """The same, by what is committed together."""
    new_files: frozenset[str]
    """Dev mode only: the tags among `pending` that the journal does not have yet."""
    fingerprint: str
    drift: tuple[Difference, ...]
    done: tuple[Step, ...] = ()
    """What this run has committed before, oldest first."""

    @property
    def next_idx(self) -> int:
        """Return the journal's next free `idx`."""
        known = (*(entry.migration for entry in self.resolution.applied), *self.pending)
        return 1 + max((migration.idx for migration in known), default=-1)

    def after(self, result: BatchResult) -> Plan:
        """Return the plan that is left after this transaction is committed."""
        rest = self.pending[len(result.steps) :]
        done = self.done + result.steps
        return replace(
            self,
            pending=rest,
            batches=self.batches[1:],
            fingerprint=result.fingerprint,
            done=done,
        )


class Planner(Protocol):
    """Makes the plan of a run: `make_plan`, or dev mode's, which rewinds first."""

    def __call__(self, context: GuardContext, *, fresh: bool) -> Plan:
        """Make it; `fresh`: the database is empty. Raises what prevents the run."""
        ...


@frozen
class HazardFinding:
    """A hazard, and the migration that has it."""

    tag: str
    hazard: Hazard


@frozen
class Rehearsal:
    """What the pending migrations did to a copy."""

    steps: tuple[Step, ...]
    fingerprints: Mapping[str, str]
    """The tag that ends a transaction → the schema's fingerprint after it."""
    hazards: tuple[HazardFinding, ...]
    duration_ms: float


@frozen
class BatchResult:
    """What one transaction did; it may still be rolled back."""

    steps: tuple[Step, ...]
    fingerprint: str
    changes: tuple[DataChange, ...] = ()
    """Rows and values that the statements removed on purpose."""
