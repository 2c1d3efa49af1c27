"""Revert migrations with their down files, in the caller's transaction.

The expected result is known beforehand: the schema that the remaining migrations make of an empty
database. Any other result is refused. The text is the migration's `.down.sql`, or the one that the history kept when the migration was
applied, so that it works after the file is gone. A migration that cannot change the schema
(`no-transaction`) needs none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from local_mcp_gateway.database import UNWATCHED, Run
from local_mcp_gateway.errors import (
    HistoryRefused,
    NoWayBack,
    ProblemCode,
    UsageProblem,
    VerificationFailed,
)
from local_mcp_gateway.migrate.apply import (
    WHILE_APPLIED,
    Observer,
    run_and_compare,
    supervised,
)
from local_mcp_gateway.migrate.folder import down_text
from local_mcp_gateway.migrate.options import DEFAULT_OPTIONS
from local_mcp_gateway.migrate.plan import find_drift
from local_mcp_gateway.migrate.rebuilds import watch_rebuilds
from local_mcp_gateway.migrate.replay import replay, replay_on
from local_mcp_gateway.migrate.statements import parse, split
from local_mcp_gateway.migrate.verify import (
    count_rows,
    keep_sequences,
    verify,
    verify_dependents,
)
from local_mcp_gateway.schema import compare, hazards_of, inspect

if TYPE_CHECKING:
    import sqlite3

    from local_mcp_gateway.migrate.apply import Step
    from local_mcp_gateway.migrate.folder import Migration
    from local_mcp_gateway.migrate.ledger import Ledger
    from local_mcp_gateway.migrate.options import MigrationOptions
    from local_mcp_gateway.migrate.resolution import AppliedMigration, Resolution
    from local_mcp_gateway.schema import Difference, Hazard, Prepare, Schema

# Pending or unjournaled files do not matter for a revert.
_HARMLESS = frozenset({ProblemCode.OUT_OF_ORDER, ProblemCode.UNJOURNALED, ProblemCode.DUPLICATE})


@dataclass(frozen=True, slots=True)
class Reversal:
    """A migration to revert, and the SQL that does it."""

    applied: AppliedMigration
    sql: str

    @property
    def migration(self) -> Migration:
        """Return the migration that is reverted."""
        return self.applied.migration


def select_chain(
    applied: Sequence[AppliedMigration], *, steps: int | None = None, to: str | None = None
) -> tuple[AppliedMigration, ...]:
    """Return what is to be reverted, newest first; `to` is the tag that stays the last one applied.

    Raises UsageProblem for a tag that is not applied, or more steps than there are.
    """
    if to is not None:
        tags = [entry.tag for entry in applied]
        if to not in tags:
            raise UsageProblem(
                f"{to} is not applied, so nothing can go back to it.", hint="See `db status`."
            )
        return tuple(reversed(applied[tags.index(to) + 1 :]))
    count = 1 if steps is None else steps
    if count > len(applied):
        raise UsageProblem(
            f"There are {len(applied)} applied migrations, so {count} cannot be reverted.",
            hint="See `db status`.",
        )
    return tuple(reversed(applied[len(applied) - count :]))


def find_reversals(
    chain: Sequence[AppliedMigration], kept: Mapping[str, str]
) -> tuple[tuple[Reversal, ...], tuple[Migration, ...]]:
    """Return the down texts, and the migrations without one. `kept` are the texts in the history, by tag.

    Raises HistoryRefused for a file that is not text.
    """
    found: list[Reversal] = []
    missing: list[Migration] = []
    for entry in chain:
        down = down_text(entry.migration)
        if down is not None:
            found.append(Reversal(entry, down))
        elif entry.tag in kept:
            found.append(Reversal(entry, kept[entry.tag]))
        elif entry.migration.directives.no_transaction:
            found.append(Reversal(entry, ""))
        else:
            missing.append(entry.migration)
    return tuple(found), tuple(missing)


def _no_way_back(tags: Sequence[Migration], why: str, reverts: Sequence[str]) -> NoWayBack:
    first = tags[0]
    return NoWayBack(
        f"{first.tag} has no way back: {why.format(first.down_name)}.",
        hint=f"Write {first.down_name}",
        tags=[migration.tag for migration in tags],
        reverts=list(reverts),
    )


def _empty_of_changes(reversals: Sequence[Reversal], memory: sqlite3.Connection) -> list[Migration]:
    """Return the migrations, newest first, that change the schema and whose way back says nothing.

    `memory` has the schema of those before them, and gets theirs.
    """
    if all(any(split(one.sql)) for one in reversals):
        return []
    found: list[Migration] = []
    before = inspect(memory)
    for one in reversed(reversals):
        replay_on(memory, [one.migration], schema_only=True)
        after = inspect(memory)
        if after != before and not any(split(one.sql)):
            found.insert(0, one.migration)
        before = after
    return found


@dataclass(frozen=True, slots=True)
class DownPlan:
    """What a revert would do."""

    applied: tuple[AppliedMigration, ...]
    reversals: tuple[Reversal, ...]
    """Newest first."""
    expected: Schema
    """The schema that the remaining migrations make."""
    found: Schema
    hazards: tuple[Hazard, ...]
    drift: tuple[Difference, ...]

    @classmethod
    def make(
        cls,
        resolution: Resolution,
        ledger: Ledger,
        *,
        steps: int | None,
        to: str | None,
        prepare: Prepare | None = None,
    ) -> DownPlan:
        """Plan the revert; raises HistoryRefused, NoWayBack or UsageProblem."""
        problems = [problem for problem in resolution.problems if problem.code not in _HARMLESS]
        if problems:
            raise HistoryRefused(problems)
        applied = resolution.applied
        chain = select_chain(applied, steps=steps, to=to)
        reversals, missing = find_reversals(chain, ledger.downs(entry.tag for entry in chain))
        reverts = [entry.tag for entry in chain]
        if missing:
            raise _no_way_back(missing, "there is no {}, in the folder or in the history", reverts)
        found = inspect(ledger.connection)
        drift = find_drift(resolution, ledger, prepare)
        remaining = applied[: len(applied) - len(chain)]
        kept = (entry.migration for entry in remaining)
        with replay(kept, prepare=prepare, schema_only=True) as memory:
            expected = inspect(memory)
            if empty := _empty_of_changes(reversals, memory):
                raise _no_way_back(empty, "{} has no statement, and it changes the schema", reverts)
        statements = [statement.text for one in reversals for statement in split(one.sql)]
        hazards = hazards_of(statements, found, expected)
        return cls(applied, reversals, expected, found, hazards, drift)

    def revert(
        self,
        ledger: Ledger,
        *,
        backup: str | None = None,
        options: MigrationOptions = DEFAULT_OPTIONS,
        journal_mode: str | None = None,
        run: Run = UNWATCHED,
    ) -> tuple[Step, ...]:
        """Run the down files, remove the migrations from the ledger, and verify the result.

        Inside the caller's transaction. `journal_mode`: of the database, if this is a copy of it. Raises
        what applying a migration raises, naming the `.down.sql` file.
        """
        connection = ledger.connection
        before = count_rows(connection)
        ledger.ensure()
        rebuilds = watch_rebuilds(connection, options.compare_limit_values, run)
        rebuilds.accepts = {
            word for one in self.reversals for word in parse(one.sql).directives.accept
        }
        observer = Observer()
        observer.journal_mode = journal_mode or observer.journal_mode
        with supervised(connection, run, observer, rebuilds) as session:
            done = []
            for one in self.reversals:
                run.checkpoint(WHILE_APPLIED)
                done.append(run_and_compare(session, one.migration, down=one.sql))
        steps = tuple(done)
        for one, step in zip(self.reversals, steps, strict=True):
            ledger.forget(one.applied, facts=step.facts(None), backup=backup)
        keep_sequences(connection, before.sequences, steps)
        verify(connection, before, steps)
        verify_dependents(connection, before, steps, lost=False)
        self._require_expected(inspect(connection), steps)
        ledger.record_fingerprint(ledger.fingerprint())
        return steps

    def _require_expected(self, now: Schema, steps: Sequence[Step]) -> None:
        differences = compare(self.expected, now)
        if differences:
            raise VerificationFailed(
                f"After the way back of {steps[-1].tag} the schema is not what it was before it:"
                f" {differences[0]}"
                + (f" (and {len(differences) - 1} more)." if len(differences) > 1 else "."),
                hint=f"Correct {self.reversals[-1].migration.down_name}; the database is unchanged.",
                differences=[str(difference) for difference in differences],
            )
