"""Report the state of a database and its folder (`db status`): no lock, no write, no integrity check."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Literal

from local_mcp_gateway.database.connections import has_content, is_empty, is_writable, reading
from local_mcp_gateway.errors import (
    Damaged,
    Exit,
    ForeignLog,
    GatewayError,
    HistoryRefused,
    NotADatabase,
    Problem,
)
from local_mcp_gateway.frozen import frozen
from local_mcp_gateway.guard.plan import find_drift, up_to
from local_mcp_gateway.migrate.folder import read_folder
from local_mcp_gateway.migrate.ledger import Ledger, Recorded
from local_mcp_gateway.migrate.resolve import Resolution, resolve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from local_mcp_gateway.database.connections import Connection
    from local_mcp_gateway.errors import DatabaseEmptied
    from local_mcp_gateway.migrate.folder import Folder, Migration
    from local_mcp_gateway.migrate.resolve import AppliedMigration
    from local_mcp_gateway.schema import Difference, Hazard, Schema


State = Literal["new", "current", "pending", "refused", "damaged"]


@frozen
class Pending:
    """A pending migration and its hazards."""

    migration: Migration
    statements: int
    hazards: tuple[Hazard, ...]

    def as_json(self) -> dict[str, object]:
        """Return its entry in `pending`."""
        return {
            "tag": self.migration.tag,
            "hash": self.migration.hash,
            "statements": self.statements,
            "hazards": [asdict(hazard) for hazard in self.hazards],
        }


@frozen
class Status:
    """The current state, what would be applied, and what prevents it."""

    database: Path
    state: State
    applied: tuple[AppliedMigration, ...] = ()
    pending: tuple[Pending, ...] = ()
    problems: tuple[Problem, ...] = ()
    drift: tuple[Difference, ...] = ()
    read_only: bool = False
    """This user may read the database but not write it."""

    @property
    def exit_code(self) -> Exit:
        """Return the exit code: 6 wins over 8, and 8 over 3."""
        if self.state == "damaged":
            return Exit.DAMAGED
        if self.problems:
            return Exit.REFUSED
        return Exit.DIFFERS if self.pending or self.drift else Exit.OK

    def as_json(self) -> dict[str, object]:
        """Return the part of `db status --json` that is about the database and its folder."""
        return {
            "database": str(self.database),
            "state": self.state,
            "applied": [
                {
                    "tag": entry.tag,
                    "hash": entry.hash,
                    "created_at": entry.created_at,
                    "applied_at": entry.applied_at,
                    "duration_ms": entry.duration_ms,
                    "line_ends_differ": entry.line_ends_differ,
                }
                for entry in self.applied
            ],
            "pending": [pending.as_json() for pending in self.pending],
            "problems": [
                {"code": p.code, "tag": p.tag, "message": p.message, "hint": p.hint}
                for p in self.problems
            ],
            "drift": [asdict(difference) for difference in self.drift],
            "read_only": self.read_only,
        }


def get_status(
    database: Path,
    migrations: Path,
    *,
    backup_folder: Path | None = None,
    to: str | None = None,
    allow_out_of_order: bool = False,
    prepare: Callable[[Connection], None] | None = None,
) -> Status:
    """Read a database and its folder; raises MigrationsFolderProblem or DatabasePathProblem.

    A damaged file or one that is not a database is a state here, not an error: the rest is still shown.
    """
    folder = read_folder(migrations)
    try:
        if not has_content(database):
            resolution = resolve(folder, (), allow_out_of_order=allow_out_of_order)
            drift: tuple[Difference, ...] = ()
            found = _pending(resolution, up_to(resolution, to), None, prepare)
            empty = True
        else:
            with reading(database) as reader:
                ledger = Ledger(reader)
                resolution = _resolve(folder, ledger, allow_out_of_order=allow_out_of_order)
                unknown = not ledger.recorded_fingerprint()
                drift = find_drift(ledger, resolution, prepare) if unknown else ()
                found = _pending(resolution, up_to(resolution, to), reader, prepare)
                empty = is_empty(reader)
    except (Damaged, NotADatabase, ForeignLog) as error:
        state: State = "refused" if isinstance(error, ForeignLog) else "damaged"
        return Status(database, state, problems=(_as_problem(error),))
    problems = resolution.problems
    if empty and (emptied := _find_emptied(database, migrations, backup_folder)) is not None:
        problems = (_as_problem(emptied), *problems)
    state = (
        "refused"
        if problems
        else "new"
        if empty
        else "pending"
        if resolution.pending
        else "current"
    )
    read_only = database.exists() and not is_writable(database)
    return Status(database, state, resolution.applied, found, problems, drift, read_only)


def _as_problem(error: GatewayError) -> Problem:
    return Problem(error.code, error.message, error.hint)


def _find_emptied(
    database: Path, migrations: Path, backup_folder: Path | None
) -> DatabaseEmptied | None:
    """Return the error of a start on an empty or missing database that is not a new one."""
    from local_mcp_gateway.guard.context import GuardContext, GuardPolicy
    from local_mcp_gateway.guard.transaction import find_emptied

    policy = GuardPolicy(backup_folder=backup_folder)
    size = database.stat().st_size if database.exists() else 0
    return find_emptied(GuardContext(database, migrations, policy), size)


def _resolve(folder: Folder, ledger: Ledger, *, allow_out_of_order: bool) -> Resolution:
    """Resolve against the ledger; a ledger that is not ours is a problem like any other."""
    try:
        rows = ledger.rows()
    except HistoryRefused as error:
        return Resolution((), (), error.problems)
    return resolve(folder, rows, allow_out_of_order=allow_out_of_order)


def _pending(
    resolution: Resolution,
    pending: tuple[Migration, ...],
    reader: Connection | None,
    prepare: Callable[[Connection], None] | None,
) -> tuple[Pending, ...]:
    """Find the hazards of each pending migration on the schema that it will meet.

    A rebuild is judged by the rows that `reader` sees. A chain that fails in the replay is shown
    without hazards: applying it will report the error.
    """
    if not pending:
        return ()
    from local_mcp_gateway.guard.rehearse import is_data_independent
    from local_mcp_gateway.migrate.replay import extend, replay
    from local_mcp_gateway.schema import hazards_of, inspect, kept_instead, rebuild_cost

    done = tuple(entry.migration for entry in resolution.applied)
    found: dict[str, tuple[Hazard, ...]] = {}
    try:
        with closing(replay(done, prepare=prepare, past=True)) as memory:
            before: Schema | None = None
            for migration in (
                pending if done or reader else ()
            ):  # a new database has nothing to lose
                kept = tuple(
                    kept
                    for text in migration.texts
                    if (
                        kept := kept_instead(memory, text)
                        or (reader and kept_instead(reader, text))
                    )
                )
                if not done or is_data_independent(migration):
                    extend(memory, migration)
                    before = None
                    found[migration.tag] = kept
                    continue
                before = before or inspect(memory)
                extend(memory, migration)
                after = inspect(memory)
                hazards = hazards_of(migration.texts, before, after)
                found[migration.tag] = kept + (rebuild_cost(hazards, reader) if reader else hazards)
                before = after
    except GatewayError:
        pass
    return tuple(Pending(m, len(m.statements), found.get(m.tag, ())) for m in pending)


def read_events(database: Path) -> tuple[Recorded, ...]:
    """Return the history of a database, oldest first; none for one that does not exist yet."""
    if not database.exists():
        return ()
    with reading(database) as reader:
        return Ledger(reader).events()
