"""Repair a database's migration history: adopt, trust files, accept an edit, mark as applied, renumber.

Each repair is recorded, and confirmed before anything is written. It writes only rows of the ledger and
the history, in the caller's transaction, or the folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from local_mcp_gateway.errors import HistoryRefused, NotAdopted, ProblemCode, UsageProblem
from local_mcp_gateway.migrate.folder import read_folder
from local_mcp_gateway.migrate.folder_edits import plan_renumber, renumber
from local_mcp_gateway.migrate.plan import Plan, find_drift
from local_mcp_gateway.migrate.replay import differences_from, find_point
from local_mcp_gateway.migrate.resolution import resolve
from local_mcp_gateway.sql import first_words

if TYPE_CHECKING:
    from pathlib import Path

    from local_mcp_gateway.migrate.folder import Migration
    from local_mcp_gateway.migrate.folder_edits import RenumberedMigration
    from local_mcp_gateway.migrate.ledger import Ledger
    from local_mcp_gateway.migrate.resolution import Edited
    from local_mcp_gateway.schema import Prepare

Confirm = Callable[[Sequence[str]], None]
"""Gets what is about to be recorded; raises NotConfirmed to leave everything as it was."""
ConfirmEdit = Callable[["Edited", str | None], None]
"""The same, with the edited migration and the text that was applied, if that is known."""
_SCHEMA_VERBS = ("CREATE", "ALTER", "DROP")


class Repair:
    """The repairs of one database with one folder."""

    def __init__(
        self, database: Path, migrations: Path, ledger: Ledger, *, prepare: Prepare | None = None
    ) -> None:
        self.tags: list[str] = []
        """Of the migrations whose records were corrected."""
        self.recorded = False
        """Whether anything was written to the database."""
        self._database = database
        self._folder = read_folder(migrations)
        self._ledger = ledger
        self._prepare = prepare

    def adopt(self, confirm: Confirm) -> tuple[str, ...]:
        """Record as applied the migrations that make exactly the database's schema; return their tags.

        Raises NotAdopted with the difference if no prefix of the folder does, UsageProblem if the
        database has a ledger already.
        """
        folder, ledger = self._folder, self._ledger
        problems = [p for p in resolve(folder, ()).problems if p.code != ProblemCode.OUT_OF_ORDER]
        if problems:
            raise HistoryRefused(problems)
        if ledger.rows():
            raise UsageProblem(
                f"{self._database} has a ledger already, so nothing needs to be adopted.",
                hint="See `db status`; edited files are taken as they are with `db adopt --trust-files`.",
            )
        point = find_point(folder.migrations, ledger.connection, prepare=self._prepare)
        if point.count is None or point.earliest is None:
            where = (
                folder.migrations[point.nearest - 1].tag if point.nearest else "an empty database"
            )
            more = f" (and {len(point.differences) - 1} more)" if len(point.differences) > 1 else ""
            raise NotAdopted(
                f"No point of {folder.path} gives the schema of {self._database}; the nearest is {where}:"
                f" {point.differences[0]}{more}.",
                nearest=where,
                differences=[str(difference) for difference in point.differences],
            )
        adopted = folder.migrations[: point.count]
        told = [f"{len(adopted)} of {len(folder.migrations)} migrations will be marked as applied."]
        told += [
            f"{migration.tag} changes no schema: whether its data is there cannot be seen."
            for migration in folder.migrations[point.earliest : point.count]
        ]
        confirm(told)
        self._record(adopted, "adopted")
        return tuple(migration.tag for migration in adopted)

    def trust_files(self, confirm: Confirm) -> tuple[str, ...]:
        """Accept every edited file as the one that was applied; return their tags."""
        edited = resolve(self._folder, self._ledger.rows()).edited
        if edited:
            confirm([_told(entry) for entry in edited])
            self._accept(edited, "trusted")
        return tuple(entry.migration.tag for entry in edited)

    def accept_edited(self, tag: str, confirm: ConfirmEdit) -> Edited:
        """Accept one edited file as the one that was applied; raises UsageProblem if it is not edited."""
        edited = resolve(self._folder, self._ledger.rows()).edited
        entry = next((entry for entry in edited if entry.migration.tag == tag), None)
        if entry is None:
            raise UsageProblem(
                f"{tag} is not an applied migration whose file was edited.", hint="See `db status`."
            )
        confirm(entry, self._ledger.last_text(entry.row.hash))
        self._accept((entry,), "edit_accepted")
        return entry

    def mark_applied(self, tag: str, confirm: Confirm) -> tuple[Migration, ...]:
        """Record what is pending up to and with `tag` as applied by hand; run nothing, and return it.

        Raises NotAdopted unless the schema is exactly what the migrations up to there make,
        HistoryRefused for a history with problems, UsageProblem if `tag` is applied already or unknown.
        """
        plan = Plan.read(self._folder, self._ledger)
        if plan.problems:
            raise HistoryRefused(plan.problems)
        marked = plan.up_to(tag).pending
        if not marked:
            raise UsageProblem(f"{tag} is applied already.", hint="See `db status`.")
        done = [entry.migration for entry in plan.applied]
        differences = differences_from(
            [*done, *marked], self._ledger.connection, prepare=self._prepare
        )
        if differences:
            more = f" (and {len(differences) - 1} more)" if len(differences) > 1 else ""
            raise NotAdopted(
                f"The schema of {self._database} is not what the migrations up to {tag} make:"
                f" {differences[0]}{more}.",
                differences=[str(difference) for difference in differences],
            )
        names = [migration.tag for migration in marked]
        told = [
            f"{' and '.join(filter(None, (', '.join(names[:-1]), tag)))} will be marked as applied."
        ]
        told += [
            f"{migration.tag} does more than change the schema: whether that was done cannot be seen."
            for migration in marked
            if any(first_words(text, 1)[0] not in _SCHEMA_VERBS for text in migration.texts)
        ]
        confirm(told)
        self._record(marked, "marked_applied")
        self.tags += names
        return marked

    def renumber(self, *, now_ms: int) -> tuple[RenumberedMigration, ...]:
        """Renumber pending migrations with a taken number, or an early date, to the end of the folder."""
        found = resolve(self._folder, self._ledger.rows())
        moves = plan_renumber(self._folder, found, now_ms=now_ms)
        renumber(self._folder.path, moves)
        return moves

    def _record(self, migrations: Sequence[Migration], event: str) -> None:
        ledger = self._ledger
        ledger.ensure(stamped=self._folder.stamped)
        ledger.record([(migration, None) for migration in migrations], event=event)
        if migrations:
            ledger.record_fingerprint(ledger.fingerprint())
        self.recorded = True

    def _accept(self, entries: Sequence[Edited], event: str) -> None:
        """Write the new hashes, and the fingerprint if the files still make the current schema."""
        ledger = self._ledger
        ledger.ensure(stamped=self._folder.stamped)
        for entry in entries:
            ledger.accept(entry, event=event)
            self.tags.append(entry.migration.tag)
        # Replays the folder as it is now: a file that does not even run is refused here.
        if not find_drift(resolve(self._folder, ledger.rows()), ledger, self._prepare):
            ledger.record_fingerprint(ledger.fingerprint())
        self.recorded = True


def _told(entry: Edited) -> str:
    return (
        f"{entry.migration.tag} will be taken as it is: hash {entry.migration.hash[:12]}…"
        f" instead of {entry.row.hash[:12]}…."
    )
