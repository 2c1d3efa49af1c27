"""Find where folder and database diverge, and which migrations a rewind must revert."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from local_mcp_gateway.database.connections import reading
from local_mcp_gateway.errors import ProblemCode
from local_mcp_gateway.migrate.folder import Migration, read_folder
from local_mcp_gateway.migrate.resolve import AppliedMigration, Resolution, match

if TYPE_CHECKING:
    from pathlib import Path

    from local_mcp_gateway.guard.context import GuardContext
    from local_mcp_gateway.migrate.folder import Folder
    from local_mcp_gateway.migrate.ledger import Applied


@dataclass(frozen=True, slots=True)
class Divergence:
    """The migrations to revert."""

    rows: tuple[Applied, ...]
    """The whole ledger, in the order in which it was written."""
    kept: int
    """How many of the rows stay, counted from the first."""
    history: Resolution
    """The ledger as a resolution, with the texts that were applied."""
    complete: bool
    """The text of every applied migration is known."""

    @property
    def tags(self) -> tuple[str, ...]:
        """Return what is reverted, oldest first."""
        return tuple(_name(row) for row in self.rows[self.kept :])

    def unchanged(self, folder: Path) -> frozenset[str]:
        """Return the applied migrations whose text in the folder is unchanged."""
        now = {m.tag: m.hashes for m in read_folder(folder, journal_new_files=True).migrations}
        return frozenset(
            _name(row) for row in self.rows if row.hash in now.get(_name(row), frozenset())
        )

    def texts_from(self, number: int) -> tuple[Migration, ...]:
        """Return what was applied from this row of the ledger on; nothing unless all texts are known."""
        return tuple(e.migration for e in self.history.applied[number:]) if self.complete else ()


def find_divergence(context: GuardContext, *, at_start: bool) -> Divergence | None:
    """Return what must be reverted; None when that would not resolve the refusal.

    None for a folder that cannot be read: a broken journal does not mean that something was deleted.
    """
    folder = read_folder(context.migrations, journal_new_files=True)
    if any(problem.code != ProblemCode.MISSING for problem in folder.problems):
        return None
    with reading(context.database, locked=True) as reader:
        ledger = context.ledger(reader)
        rows = ledger.rows()
        texts = ledger.texts()
        downs = ledger.downs(row.tag for row in rows if row.tag)
    kept = common_prefix(folder, rows)
    _, _, strangers = match(folder, rows)
    if kept == len(rows) and not (folder.absent and not at_start):
        return None
    if at_start and not all((found := texts.get(row[:2])) and found.in_dev for row in strangers):
        return None
    by_hash = {digest: m for m in folder.migrations for digest in m.hashes}
    applied = []
    for idx, row in enumerate(rows):
        text = texts.get(row[:2])
        same = by_hash.get(row.hash)
        sql = text.sql if text else same.sql if same else ""
        applied.append(AppliedMigration(_as_applied(context, row, idx, sql, downs), row))
    complete = all(row[:2] in texts or row.hash in by_hash for row in rows)
    return Divergence(rows, kept, Resolution(tuple(applied), (), ()), complete)


def _as_applied(
    context: GuardContext, row: Applied, idx: int, sql: str, downs: dict[str, str]
) -> Migration:
    """Return a row of the ledger as the migration that it was.

    A down file from the history takes precedence; one that was written since is better than none.
    """
    tag = _name(row)
    file = context.migrations / f"{tag}.down.sql"
    written = str(file) if tag not in downs and file.exists() else None
    return Migration(tag, idx, row.created_at, row.hash, sql, f"{tag}.sql", written)


def _name(row: Applied) -> str:
    return row.tag or row.hash[:12]


def common_prefix(folder: Folder, rows: Sequence[Applied]) -> int:
    """Return how many of the ledger's rows, from the first one on, may stay as they are.

    A row must go if the folder does not have its text, or has an earlier migration that would then be
    applied after it.
    """
    place = {migration.tag: number for number, migration in enumerate(folder.migrations)}
    matched, _, _ = match(folder, rows)
    place_of = {row[:2]: place[tag] for tag, row in matched.items()}
    places = [place_of.get(row[:2]) for row in rows]
    kept = len(rows)
    while True:
        there = set(places[:kept])
        gap = next((n for n in range(len(place)) if n not in there), len(place))
        bad = (n for n, found in enumerate(places[:kept]) if found is None or found > gap)
        first = next(bad, kept)
        if first == kept:
            return kept
        kept = first
