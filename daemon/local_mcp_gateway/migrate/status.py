"""Report the state of a database and its folder (`db status`): no lock, no write, no integrity check.

A pending migration is shown with its hazards. Some have none, since no row can make a statement fail:
CREATE TABLE (not AS SELECT), CREATE VIEW, CREATE TRIGGER, and ALTER TABLE … ADD COLUMN without a
constraint or an expression. None of them reads an existing row, so a start may skip their rehearsal.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Literal

from local_mcp_gateway.database import has_content, is_empty, is_writable, reading
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
from local_mcp_gateway.migrate.folder import read_folder
from local_mcp_gateway.migrate.ledger import Ledger
from local_mcp_gateway.migrate.plan import Plan, mark_applied_hint
from local_mcp_gateway.migrate.resolution import Resolution
from local_mcp_gateway.sql import tokens

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from local_mcp_gateway.database import Connection
    from local_mcp_gateway.migrate.folder import Migration
    from local_mcp_gateway.migrate.history import Recorded
    from local_mcp_gateway.migrate.resolution import AppliedMigration
    from local_mcp_gateway.schema import Difference, Hazard, Prepare, Schema

    Look = Callable[[Path], AbstractContextManager[Connection]]

State = Literal["new", "current", "pending", "refused", "damaged"]
_CREATED = frozenset({"TABLE", "VIEW", "TRIGGER"})
_CONSTRAINING = frozenset(
    {"NOT", "CHECK", "GENERATED", "AS", "REFERENCES", "UNIQUE", "PRIMARY", "DEFAULT"}
)


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
    empty: bool = False
    """There is no database yet, or nothing in it."""
    applied_by_hand: str | None = None
    """As the plan has it."""

    @property
    def exit_code(self) -> Exit:
        """Return the exit code: 6 wins over 8, and 8 over 3."""
        if self.state == "damaged":
            return Exit.DAMAGED
        if self.problems:
            return Exit.REFUSED
        return Exit.DIFFERS if self.pending or self.drift else Exit.OK

    @property
    def drift_hint(self) -> str | None:
        """Return what to do about the drift, if it is what pending migrations do."""
        return mark_applied_hint(self.applied_by_hand)

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
            "applied_by_hand": self.applied_by_hand,
            "read_only": self.read_only,
        }

    @classmethod
    def read(
        cls,
        database: Path,
        migrations: Path,
        *,
        to: str | None = None,
        allow_out_of_order: bool = False,
        prepare: Prepare | None = None,
        look: Look = reading,
    ) -> Status:
        """Read a database and its folder; raises MigrationsFolderProblem or DatabasePathProblem.

        `look` opens the database: a process that serves it may do so through SQLite only.

        A damaged file or one that is not a database is a state here, not an error: the rest is still
        shown.
        """
        folder = read_folder(migrations)
        try:
            if not has_content(database):
                plan = Plan.read(folder, allow_out_of_order=allow_out_of_order)
                return cls._of(database, plan.up_to(to), None, prepare, empty=True)
            with look(database) as reader:
                ledger = Ledger(reader)
                try:
                    plan = Plan.read(
                        folder,
                        ledger,
                        allow_out_of_order=allow_out_of_order,
                        details=True,
                        prepare=prepare,
                    )
                except HistoryRefused as error:  # a table is not ours: a problem like any other
                    plan = Plan(folder, Resolution((), (), error.problems), (), ())
                plan = plan.with_drift(ledger, prepare).up_to(to)
                return cls._of(database, plan, reader, prepare, empty=is_empty(reader))
        except (Damaged, NotADatabase, ForeignLog) as error:
            state: State = "refused" if isinstance(error, ForeignLog) else "damaged"
            return cls(database, state, problems=(Problem(error.code, error.message, error.hint),))

    @classmethod
    def _of(
        cls,
        database: Path,
        plan: Plan,
        reader: Connection | None,
        prepare: Prepare | None,
        *,
        empty: bool,
    ) -> Status:
        hazards = hazards_of_pending(plan, reader, prepare) if plan.pending else {}
        pending = tuple(Pending(m, len(m.statements), hazards.get(m.tag, ())) for m in plan.pending)
        left = bool(plan.resolution.pending)
        state: State = (
            "refused" if plan.problems else "new" if empty else "pending" if left else "current"
        )
        read_only = database.exists() and not is_writable(database)
        return cls(
            database,
            state,
            plan.applied,
            pending,
            plan.problems,
            plan.drift,
            read_only,
            empty,
            plan.applied_by_hand,
        )

    def refused(self, error: GatewayError) -> Status:
        """Return the same status with one more problem, which comes first."""
        problem = Problem(error.code, error.message, error.hint)
        return replace(self, state="refused", problems=(problem, *self.problems))


def read_events(database: Path, look: Look = reading) -> tuple[Recorded, ...]:
    """Return the history of a database, oldest first; none for one that does not exist yet."""
    if not database.exists():
        return ()
    with look(database) as reader:
        return Ledger(reader).events()


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


def hazards_of_pending(
    plan: Plan, reader: sqlite3.Connection | None, prepare: Prepare | None = None
) -> dict[str, tuple[Hazard, ...]]:
    """Return the hazards of each pending migration, by tag, on the schema that it will meet.

    A rebuild is judged by the rows that `reader` sees. A chain that fails in the replay has no hazards:
    applying it will report the error.
    """
    from local_mcp_gateway.migrate.replay import extend, replay
    from local_mcp_gateway.schema import hazards_of, inspect, kept_instead, rebuild_cost

    done = tuple(entry.migration for entry in plan.applied)
    found: dict[str, tuple[Hazard, ...]] = {}
    if not done and reader is None:  # a new database has nothing to lose
        return found
    with suppress(GatewayError), replay(done, prepare=prepare, schema_only=True) as memory:
        before: Schema | None = None
        for migration in plan.pending:
            kept = tuple(
                kept
                for text in migration.texts
                if (kept := kept_instead(memory, text) or (reader and kept_instead(reader, text)))
            )
            if not done or is_data_independent(migration):
                extend(memory, migration)
                found[migration.tag] = kept
                before = None
                continue
            before = before or inspect(memory)
            texts = extend(memory, migration).texts
            after = inspect(memory)
            hazards = hazards_of(texts, before, after)
            found[migration.tag] = kept + (rebuild_cost(hazards, reader) if reader else hazards)
            before = after
    return found
