"""Repair a database's migration history: adopt, trust files, accept an edit, mark as applied, renumber.

Each repair is recorded, and confirmed before anything is written. It writes only rows of the ledger and
the history, in the caller's transaction, or the folder.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from local_mcp_gateway.errors import HistoryRefused, NotAdopted, ProblemCode, UsageProblem
from local_mcp_gateway.migrate.folder import read_folder
from local_mcp_gateway.migrate.folder_edits import plan_renumber, renumber
from local_mcp_gateway.migrate.history import UNKNOWN
from local_mcp_gateway.migrate.original import find_original
from local_mcp_gateway.migrate.plan import Plan, find_drift
from local_mcp_gateway.migrate.replay import differences_from, find_point
from local_mcp_gateway.migrate.resolution import resolve
from local_mcp_gateway.migrate.squashed import as_seen_by, unsquashed
from local_mcp_gateway.migrate.statements import may_alter_column
from local_mcp_gateway.sql import first_words, tokens

if TYPE_CHECKING:
    from pathlib import Path

    from local_mcp_gateway.migrate.folder import Migration
    from local_mcp_gateway.migrate.folder_edits import RenumberedMigration
    from local_mcp_gateway.migrate.foreign_ledgers import ForeignLedger
    from local_mcp_gateway.migrate.ledger import Ledger
    from local_mcp_gateway.migrate.resolution import Edited
    from local_mcp_gateway.schema import Difference, Prepare

Confirm = Callable[[Sequence[str]], None]
"""Gets what is about to be recorded; raises NotConfirmed to leave everything as it was."""
ConfirmEdit = Callable[["Edited", str | None], None]
"""The same, with the edited migration and the text that was applied, if that is known."""
_SCHEMA_VERBS = ("CREATE", "ALTER", "DROP")
_SEEN_VERBS = (*_SCHEMA_VERBS, "SELECT", "PRAGMA")
"""What changes the schema or nothing: the schema says whether it ran, or it does not matter."""


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
        self._own = read_folder(migrations)
        """The folder as it is; `_folder` is as this database sees it."""
        rows = ledger.rows()
        self._folder = as_seen_by(self._own, rows) if rows else unsquashed(self._own)
        self._ledger = ledger
        self._prepare = prepare

    @property
    def has_ledger(self) -> bool:
        """Return whether the database has a ledger of ours, or of Drizzle's, with anything in it."""
        return bool(self._ledger.rows())

    def adopt(
        self, confirm: Confirm, *, to: str | None = None, trust_files: bool = False
    ) -> tuple[str, ...]:
        """Record as applied what another tool's ledger says, or up to the tag `to`; return the tags.

        Without either, the migrations that make exactly the database's schema. In a database with a ledger
        of ours, those that the other tool has applied since, or else those that were applied by hand, if
        they change the schema alone. Raises NotAdopted with
        the difference if the schema is another one, UsageProblem if there is nothing to adopt, or
        if nothing tells whether migrations that change no schema have run.
        """
        folder = self._folder
        problems = [p for p in resolve(folder, ()).problems if p.code != ProblemCode.OUT_OF_ORDER]
        if problems:
            raise HistoryRefused(problems)
        if self.has_ledger:
            adopted, said = (
                self._recorded_since(trust_files=trust_files) if to is None else ((), "")
            )
            if not adopted:
                return self._applied_by_hand(confirm, to)
        elif original := find_original(self._ledger.connection):
            raise HistoryRefused([original.problem])
        elif to is not None:
            adopted, said = self._up_to(to), ""
        else:
            adopted, said = self._recorded_elsewhere(trust_files=trust_files)
        number = f"{len(adopted)} of {len(folder.migrations)} migrations"
        confirm([f"{number} will be marked as applied{said and f', as {said} says'}."])
        self._record(adopted, "adopted")
        return tuple(migration.tag for migration in adopted)

    def _applied_by_hand(self, confirm: Confirm, to: str | None) -> tuple[str, ...]:
        """Mark the pending migrations that the schema shows to have been applied by hand."""
        plan = Plan.read(self._folder, self._ledger, prepare=self._prepare)
        plan = plan.with_drift(self._ledger, self._prepare)
        tag = plan.applied_by_hand
        if tag is None or to not in {None, tag}:
            raise UsageProblem(
                f"{self._database} has a ledger already, so nothing needs to be adopted.",
                hint=plan.drift_hint
                or "See `db status`; edited files are taken as they are with `db adopt --trust-files`.",
            )
        unseen = [m.tag for m in plan.up_to(tag).pending if not _is_seen_in_schema(m)]
        if unseen:
            raise UsageProblem(
                f"Whether {unseen[0]} ran as a whole cannot be seen in {self._database}: it does more than"
                " change the schema.",
                hint=plan.drift_hint or "",
            )
        return tuple(migration.tag for migration in self.mark_applied(tag, confirm))

    def _recorded_elsewhere(self, *, trust_files: bool) -> tuple[Sequence[Migration], str]:
        """Return what another tool's ledger says, and its name; without one what the schema says."""
        from local_mcp_gateway.migrate.foreign_ledgers import read_foreign_ledger

        migrations, connection = self._folder.migrations, self._ledger.connection
        found = read_foreign_ledger(connection, migrations, trust_files=trust_files)
        if found is None or not found.records:
            return self._by_schema(unused_ledger=found is not None), ""
        self._require_as_recorded(found, found.tags)
        return [migration for migration in migrations if migration.tag in found.tags], found.name

    def _recorded_since(self, *, trust_files: bool) -> tuple[Sequence[Migration], str]:
        """Return what the tool that the database was taken over from has applied since, and its name."""
        from local_mcp_gateway.migrate.foreign_ledgers import read_foreign_ledger

        migrations, ledger = self._folder.migrations, self._ledger
        found = resolve(self._folder, ledger.rows())
        if not found.pending or not ledger.was_adopted():
            return (), ""
        theirs = read_foreign_ledger(ledger.connection, migrations, trust_files=trust_files)
        new = [migration for migration in found.pending if theirs and migration.tag in theirs.tags]
        if theirs is None or not new:
            return (), ""
        ours = {entry.migration.tag for entry in found.applied}
        self._require_as_recorded(theirs, theirs.tags | ours)
        return new, theirs.name

    def _require_as_recorded(self, found: ForeignLedger, tags: Collection[str]) -> None:
        """Raise NotAdopted unless the migrations with these tags make exactly the database's schema."""
        migrations = self._folder.migrations
        applied = [migration for migration in migrations if migration.tag in tags]
        differences = differences_from(applied, self._ledger.connection, prepare=self._prepare)
        if differences:
            raise NotAdopted(
                f"{found.name} says that {len(found.tags)} of {len(migrations)} migrations are applied, but"
                f" the schema is not what they make: {_first_of(differences)}.",
                differences=[str(difference) for difference in differences],
            )

    def _up_to(self, tag: str) -> Sequence[Migration]:
        """Return the migrations up to and with `tag`; raises NotAdopted if they make another schema."""
        tags = [migration.tag for migration in self._folder.migrations]
        if tag not in tags:
            raise UsageProblem(
                f"There is no migration `{tag}` in {self._folder.path}.",
                hint="`db status` lists the tags.",
            )
        adopted = self._folder.migrations[: tags.index(tag) + 1]
        self._require_schema(adopted, tag)
        return adopted

    def _by_schema(self, *, unused_ledger: bool) -> Sequence[Migration]:
        """Return the migrations that make the schema; an unused ledger says that no others ran."""
        folder = self._folder
        point = find_point(folder.migrations, self._ledger.connection, prepare=self._prepare)
        if point.count is None or point.earliest is None:
            where = (
                folder.migrations[point.nearest - 1].tag if point.nearest else "an empty database"
            )
            raise NotAdopted(
                f"No point of {folder.path} gives the schema of {self._database}; the nearest is {where}:"
                f" {_first_of(point.differences)}.",
                nearest=where,
                differences=[str(difference) for difference in point.differences],
            )
        if unused_ledger:
            return folder.migrations[: point.earliest]
        unseen = [
            migration.tag
            for migration in folder.migrations[point.earliest : point.count]
            if any(first_words(text, 1)[0] not in _SEEN_VERBS for text in migration.texts)
        ]
        if unseen:
            otherwise = (
                f"`--to {folder.migrations[point.earliest - 1].tag}`"
                if point.earliest
                else "`db migrate`"
            )
            raise UsageProblem(
                f"Whether {' and '.join(filter(None, (', '.join(unseen[:-1]), unseen[-1])))} ran cannot be"
                f" seen in {self._database}: the schema is the same before and after.",
                hint=f"Say where the database stands: `db adopt --to {unseen[-1]}` if so, else {otherwise}.",
            )
        return folder.migrations[: point.count]

    def _require_schema(self, migrations: Sequence[Migration], tag: str) -> None:
        """Raise NotAdopted unless these migrations, up to `tag`, make exactly the database's schema."""
        differences = differences_from(migrations, self._ledger.connection, prepare=self._prepare)
        if differences:
            raise NotAdopted(
                f"The schema of {self._database} is not what the migrations up to {tag} make:"
                f" {_first_of(differences)}.",
                differences=[str(difference) for difference in differences],
            )

    def trust_files(self, confirm: Confirm) -> tuple[str, ...]:
        """Accept every edited file as the one that was applied; return their tags."""
        edited = resolve(self._folder, self._ledger.rows()).edited
        if edited:
            confirm([_accepting(entry) for entry in edited])
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
        plan = Plan.read(self._folder, self._ledger, prepare=self._prepare)
        if plan.problems:
            raise HistoryRefused(plan.problems)
        marked = plan.up_to(tag).pending
        if not marked:
            raise UsageProblem(f"{tag} is applied already.", hint="See `db status`.")
        self._require_schema([*(entry.migration for entry in plan.applied), *marked], tag)
        names = [migration.tag for migration in marked]
        sentences = [
            f"{' and '.join(filter(None, (', '.join(names[:-1]), tag)))} will be marked as applied."
        ]
        sentences += [
            f"{migration.tag} does more than change the schema: whether that was done cannot be seen."
            for migration in marked
            if any(first_words(text, 1)[0] not in _SCHEMA_VERBS for text in migration.texts)
        ]
        confirm(sentences)
        self._record(marked, "marked_applied")
        self.tags += names
        return marked

    def renumber(self, *, now_ms: int) -> tuple[RenumberedMigration, ...]:
        """Renumber pending migrations with a taken number, or an early date, to the end of the folder."""
        found = resolve(self._folder, self._ledger.rows())
        moves = plan_renumber(self._own, found, now_ms=now_ms)
        renumber(self._own.path, moves)
        return moves

    def _record(self, migrations: Sequence[Migration], event: str) -> None:
        ledger = self._ledger
        ledger.ensure(is_v1=self._folder.is_v1)
        ledger.record([(migration, UNKNOWN) for migration in migrations], event=event)
        if migrations:
            ledger.record_fingerprint(ledger.fingerprint())
        self.recorded = True

    def _accept(self, entries: Sequence[Edited], event: str) -> None:
        """Write the new hashes, and the fingerprint if the files still make the current schema."""
        ledger = self._ledger
        ledger.ensure(is_v1=self._folder.is_v1)
        for entry in entries:
            ledger.accept(entry, event=event)
            self.tags.append(entry.migration.tag)
        # Replays the folder as it is now: a file that does not even run is refused here.
        if not find_drift(resolve(self._folder, ledger.rows()), ledger, self._prepare):
            ledger.record_fingerprint(ledger.fingerprint())
        self.recorded = True


def _is_seen_in_schema(migration: Migration) -> bool:
    """Return whether a migration leaves nothing but the schema that it makes, so that this shows it.

    What fills a table cannot be seen, nor what drops one, since it may be there again.
    """
    for text in migration.texts:
        words = [token.upper for token in tokens(text) if token.kind == "word"]
        if words[0] not in _SCHEMA_VERBS or words[:2] == ["DROP", "TABLE"]:
            return False
        if "SELECT" in words and not {"VIEW", "TRIGGER"} & set(words[1:3]):
            return False
    return not may_alter_column(migration.sql)


def _first_of(differences: Sequence[Difference]) -> str:
    more = f" (and {len(differences) - 1} more)" if len(differences) > 1 else ""
    return f"{differences[0]}{more}"


def _accepting(entry: Edited) -> str:
    return (
        f"{entry.migration.tag} will be taken as it is: hash {entry.migration.hash[:12]}…"
        f" instead of {entry.row.hash[:12]}…."
    )
