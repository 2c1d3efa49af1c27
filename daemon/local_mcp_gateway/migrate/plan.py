"""Plan what to apply: what a folder and a ledger leave pending, by what is committed together, and drift.

Drift is a difference between the live schema and what the applied migrations make of an empty database.
The history stores the fingerprint of the schema's texts after the last migration, so an unchanged schema
costs neither inspection nor replay. Where the texts differ, the schema models are compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from local_mcp_gateway.errors import (
    ForbiddenStatement,
    MigrationFailed,
    NotAdopted,
    Problem,
    ProblemCode,
    UsageProblem,
)
from local_mcp_gateway.migrate.folder import NEW
from local_mcp_gateway.migrate.journal import Entry, write_journal
from local_mcp_gateway.migrate.resolution import Resolution, resolve

if TYPE_CHECKING:
    import sqlite3

    from local_mcp_gateway.migrate.apply import Step
    from local_mcp_gateway.migrate.batch import BatchResult
    from local_mcp_gateway.migrate.folder import Folder, Migration
    from local_mcp_gateway.migrate.ledger import Ledger
    from local_mcp_gateway.migrate.resolution import AppliedMigration
    from local_mcp_gateway.migrate.verify import Object
    from local_mcp_gateway.schema import Difference, Prepare


class Batch(NamedTuple):
    """Migrations that are committed together: all that are pending, unless one needs its own.

    `-- guard: no-transaction` runs outside of one, `-- guard: foreign-keys=on` needs a setting that
    works only before BEGIN. Adjacent migrations with the same foreign-keys setting share a batch.
    """

    migrations: tuple[Migration, ...]
    foreign_keys: bool
    """Whether foreign keys are enforced; to be set before its BEGIN."""
    no_transaction: bool
    """It is one migration of statements that SQLite refuses inside a transaction."""

    @classmethod
    def of(cls, migrations: Sequence[Migration]) -> Batch:
        """Return the batch of migrations that agree in both."""
        asked = migrations[0].directives
        return cls(tuple(migrations), asked.foreign_keys, asked.no_transaction)


def make_batches(pending: Sequence[Migration]) -> tuple[Batch, ...]:
    """Split the pending migrations into batches, in order."""
    batches: list[list[Migration]] = []
    for migration in pending:
        asked = migration.directives
        last = batches[-1][-1].directives if batches else None
        alone = asked.no_transaction or (last is not None and last.no_transaction)
        if last is None or alone or last.foreign_keys != asked.foreign_keys:
            batches.append([])
        batches[-1].append(migration)
    return tuple(map(Batch.of, batches))


class Plan(NamedTuple):
    """What one read of folder and database found to do."""

    folder: Folder
    resolution: Resolution
    pending: tuple[Migration, ...]
    """What will be applied, in order: all that is pending, or up to the tag that was asked for."""
    batches: tuple[Batch, ...]
    """The same, by what is committed together."""
    applied: tuple[AppliedMigration, ...] = ()
    """What is applied already, in the folder's order."""
    fingerprint: str = ""
    drift: tuple[Difference, ...] = ()
    done: tuple[Step, ...] = ()
    """What this run has committed before, oldest first."""
    applied_by_hand: str | None = None
    """The tag up to which the pending migrations make the live schema, where that has drifted."""

    @classmethod
    def read(
        cls,
        folder: Folder,
        ledger: Ledger | None = None,
        *,
        allow_out_of_order: bool = False,
        details: bool = False,
        prepare: Prepare | None = None,
    ) -> Plan:
        """Match the folder with the ledger; None: the database is new. The caller asks for problems.

        `details` are what only a person asks for: when each was applied, and how long it took.
        `prepare` registers what the migrations use, to replay branches of a Drizzle 1.x folder: those that
        fit in either order are not a problem.
        """
        rows = ledger.rows(details=details) if ledger is not None else ()
        if ledger is not None and not rows:
            # Before anything is backed up or shown as pending: a start would refuse it.
            from local_mcp_gateway.migrate.original import find_original

            if original := find_original(ledger.connection):
                return cls(folder, Resolution((), (), (original.problem,)), (), ())
        found = resolve(folder, rows, allow_out_of_order=allow_out_of_order)
        if found.problems and ledger is not None:  # only a problem needs what the history knows
            from local_mcp_gateway.migrate.squashed import as_seen_by

            rows = ledger.rows()
            folder = as_seen_by(folder, rows)
            found = resolve(folder, rows, allow_out_of_order=allow_out_of_order)
            if found.problems and folder.is_v1 and _is_late_branch(folder, found, prepare):
                found = resolve(folder, rows, allow_out_of_order=True)
        if found.pending and not found.problems and ledger is not None and ledger.was_adopted():
            found = found._replace(problems=_applied_elsewhere(folder, found.pending, ledger))
        return cls(folder, found, found.pending, make_batches(found.pending), found.applied)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Return why nothing may be applied; empty if it may."""
        return self.resolution.problems

    @property
    def drift_hint(self) -> str | None:
        """Return what to do about the drift, if it is what pending migrations do."""
        return mark_applied_hint(self.applied_by_hand)

    @property
    def has_new_files(self) -> bool:
        """Return whether some of what is pending has no journal entry yet (dev mode)."""
        return any(migration.idx == NEW for migration in self.pending)

    @property
    def is_data_independent(self) -> bool:
        """Return whether no row can make any pending statement fail."""
        from local_mcp_gateway.migrate.status import is_data_independent

        return all(map(is_data_independent, self.pending))

    def still_fits(self, ledger: Ledger) -> bool:
        """Return whether the ledger has the rows that this plan was made of; an empty one shows nothing."""
        rows = set(ledger.rows(details=False))
        return bool(rows) and rows == {entry.row for entry in self.applied}

    def up_to(self, tag: str | None) -> Plan:
        """Leave out what is pending after `tag`; raises UsageProblem for an unknown one."""
        if tag is None:
            return self
        number = next((n for n, m in enumerate(self.pending, 1) if m.tag == tag), 0)
        if not number and all(entry.tag != tag for entry in self.applied):
            raise UsageProblem(
                f"There is no migration `{tag}` in the folder.",
                hint="`db status` lists the tags; give one of them.",
            )
        pending = self.pending[:number]
        return self._replace(pending=pending, batches=make_batches(pending))

    def with_drift(self, ledger: Ledger, prepare: Prepare | None = None) -> Plan:
        """Compare the live schema with what the applied migrations make, if its texts have changed."""
        known = ledger.recorded_fingerprint()
        if known:
            return self._replace(fingerprint=known)
        # Somebody else changed the schema, or nobody has recorded it yet.
        drift = find_drift(self.resolution, ledger, prepare)
        by_hand = None
        if drift and not self.problems:
            by_hand = _find_applied_by_hand(self.resolution, ledger, prepare)
        return self._replace(fingerprint=ledger.fingerprint(), drift=drift, applied_by_hand=by_hand)

    def makes(
        self, connection: sqlite3.Connection, found: Sequence[Object], prepare: Prepare | None
    ) -> bool:
        """Return whether the schema is what the migrations make, the next batch included, which has just run.

        A recorded fingerprint says so. A database that other tools have made may have tables, `found` before
        the batch, that an IF NOT EXISTS has left as they are.
        """
        if self.drift:
            return False
        if self.applied or not found:
            return True
        from local_mcp_gateway.migrate.replay import differences_from

        done = {step.tag for step in self.done}
        earlier = [migration for migration in self.resolution.pending if migration.tag in done]
        made = [*earlier, *self.batches[0].migrations]
        text = "".join(migration.sql for migration in made).casefold()
        if any(_never_made_by(text, one.name) for one in found):
            return False  # found without the replay, which takes as long as the batch
        try:
            return not differences_from(made, connection, prepare=prepare)
        except (MigrationFailed, ForbiddenStatement):
            return False

    def after(self, result: BatchResult) -> Plan:
        """Return the plan that is left after this transaction is committed."""
        return self._replace(
            pending=self.pending[len(result.steps) :],
            batches=self.batches[1:],
            fingerprint=result.fingerprint,
            done=self.done + result.steps,
        )

    def journal_new(self, migrations: Iterable[Migration]) -> None:
        """Write the journal entries of those of these migrations that have none (dev mode)."""
        new = [migration for migration in migrations if migration.idx == NEW]
        self._write_entries([(migration.tag, migration.when) for migration in new])

    def journal_applied(self) -> bool:
        """Write those of applied files that have lost theirs, as after a stash; return whether any has."""
        lost = [(e.tag, e.created_at) for e in self.applied if e.migration.idx == NEW]
        self._write_entries(lost)
        return bool(lost)

    def _write_entries(self, files: Sequence[tuple[str, int]]) -> None:
        if files:
            known = (*(entry.migration for entry in self.applied), *self.pending)
            first = 1 + max((migration.idx for migration in known), default=-1)
            entries = [Entry(idx, tag, when) for idx, (tag, when) in enumerate(files, first)]
            write_journal(self.folder.path, entries)


def _never_made_by(text: str, name: str) -> bool:
    """Return whether SQL text, case-folded, certainly makes no object of this name.

    A shadow table is named like its virtual table, with a word after an underscore; quotes in a name are
    doubled in the text.
    """
    folded = name.casefold()
    return (folded.rpartition("_")[0] or folded) not in text and not {*'"`]'} & {*name}


def _applied_elsewhere(
    folder: Folder, pending: Iterable[Migration], ledger: Ledger
) -> tuple[Problem, ...]:
    """Return as problems what the tool that the database was taken over from has applied since."""
    from local_mcp_gateway.migrate.foreign_ledgers import read_foreign_ledger

    try:
        theirs = read_foreign_ledger(ledger.connection, folder.migrations)
    except NotAdopted:
        return ()  # the folder is no longer theirs
    if theirs is None:
        return ()
    return tuple(
        Problem(
            ProblemCode.APPLIED_ELSEWHERE,
            f"{theirs.name} says that {migration.tag} has been applied.",
            "Mark it as applied here too with `db adopt`; or drop that table, if it is no longer used.",
            migration.tag,
        )
        for migration in pending
        if migration.tag in theirs.tags
    )


def _is_late_branch(folder: Folder, found: Resolution, prepare: Prepare | None) -> bool:
    """Return whether all that is wrong is a branch that came late and fits in either order."""
    if any(problem.code != ProblemCode.OUT_OF_ORDER for problem in found.problems):
        return False
    from local_mcp_gateway.migrate.branches import is_late_branch

    late = {problem.tag for problem in found.problems}
    return is_late_branch(
        folder,
        [entry.migration for entry in found.applied],
        [migration for migration in found.pending if migration.tag in late],
        prepare=prepare,
    )


def find_drift(
    resolution: Resolution, ledger: Ledger, prepare: Prepare | None = None
) -> tuple[Difference, ...]:
    """Return the differences from a replay of the applied migrations; none for an unmigrated database.

    `prepare` registers what the migrations use.
    """
    if not resolution.applied or ledger.last_fingerprint() == ledger.fingerprint():
        return ()
    from local_mcp_gateway.migrate.replay import replay
    from local_mcp_gateway.schema import compare, inspect

    applied = (entry.migration for entry in resolution.applied)
    try:
        with replay(applied, prepare=prepare, schema_only=True) as expected:
            return compare(inspect(expected), inspect(ledger.connection))
    except (MigrationFailed, ForbiddenStatement):
        return ()  # applied out of order, say: a replay says nothing about this one


def _find_applied_by_hand(
    resolution: Resolution, ledger: Ledger, prepare: Prepare | None = None
) -> str | None:
    """Return the first tag up to which the pending migrations make the live schema; None: no such tag.

    Those that follow and change no schema stay pending: nothing shows whether they ran.
    """
    from local_mcp_gateway.migrate.replay import replay, replay_on
    from local_mcp_gateway.schema import compare, count_objects, inspect

    live, wanted = inspect(ledger.connection), count_objects(ledger.connection)
    applied = (entry.migration for entry in resolution.applied)
    try:
        with replay(applied, prepare=prepare, schema_only=True) as memory:
            for migration in resolution.pending:
                replay_on(memory, (migration,), schema_only=True)
                if count_objects(memory) == wanted and not compare(inspect(memory), live):
                    return migration.tag
    except (MigrationFailed, ForbiddenStatement):
        pass
    return None


def mark_applied_hint(tag: str | None) -> str | None:
    """Return how to mark the migrations up to this tag as applied; None for none."""
    return tag and (
        f"The schema is what the migrations up to {tag} make: mark them as applied with"
        f" `db repair --mark-applied {tag}`."
    )
