"""Find where folder and database diverge, and which migrations a rewind must revert."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from local_mcp_gateway.database import UNWATCHED, Run
from local_mcp_gateway.errors import ProblemCode
from local_mcp_gateway.json_input import parse_json
from local_mcp_gateway.migrate.folder import Migration, read_folder
from local_mcp_gateway.migrate.journal import replace_durably
from local_mcp_gateway.migrate.resolution import AppliedMigration, Resolution, match
from local_mcp_gateway.migrate.squashed import as_seen_by

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

    from local_mcp_gateway.migrate.folder import Folder
    from local_mcp_gateway.migrate.ledger import Applied, Ledger


@dataclass(frozen=True, slots=True)
class Divergence:
    """The migrations to revert."""

    folder: Path
    rows: tuple[Applied, ...]
    """The whole ledger, in the order in which it was written."""
    kept: int
    """How many of the rows stay, counted from the first."""
    history: Resolution
    """The ledger as a resolution, with the texts that were applied."""
    complete: bool
    """The text of every applied migration is known."""

    @classmethod
    def find(cls, path: Path, ledger: Ledger, *, at_start: bool) -> Divergence | None:
        """Return what must be reverted; None when that would not resolve the refusal.

        None for a folder that cannot be read: a broken journal does not mean that something was
        deleted. A start does not know why the folder differs, so it reverts only edited migrations and
        those that dev mode applied.
        """
        folder = read_folder(path, journal_new_files=True)
        if any(problem.code != ProblemCode.MISSING for problem in folder.problems):
            return None
        rows = ledger.rows()
        folder = as_seen_by(folder, rows)
        texts = ledger.texts()
        downs = ledger.downs(row.tag for row in rows if row.tag)
        kept = common_prefix(folder, rows)
        _, _, unmatched = match(folder, rows)
        if kept == len(rows) and not (folder.absent and not at_start):
            return None
        if at_start and not all((t := texts.get(row[:2])) and t.in_dev for row in unmatched):
            return None
        by_hash = {digest: m for m in folder.migrations for digest in m.hashes}
        applied = []
        for idx, row in enumerate(rows):
            text = texts.get(row[:2])
            same = by_hash.get(row.hash)
            sql = text.sql if text else same.sql if same else ""
            applied.append(AppliedMigration(_as_applied(path, row, idx, sql, downs), row))
        complete = all(row[:2] in texts or row.hash in by_hash for row in rows)
        return cls(path, rows, kept, Resolution(tuple(applied), (), ()), complete)

    @property
    def tags(self) -> tuple[str, ...]:
        """Return what is reverted, oldest first."""
        return tuple(_name(row) for row in self.rows[self.kept :])

    def unchanged(self) -> frozenset[str]:
        """Return the applied migrations whose text in the folder is unchanged."""
        folder = as_seen_by(read_folder(self.folder, journal_new_files=True), self.rows)
        now = {migration.tag: migration.hashes for migration in folder.migrations}
        return frozenset(
            _name(row) for row in self.rows if row.hash in now.get(_name(row), frozenset())
        )

    def texts_from(self, number: int) -> tuple[Migration, ...]:
        """Return what was applied from this row of the ledger on; nothing unless all texts are known."""
        return tuple(e.migration for e in self.history.applied[number:]) if self.complete else ()

    def replay_from(
        self, number: int, scratch: sqlite3.Connection, *, run: Run = UNWATCHED
    ) -> None:
        """Run what was applied from this row of the ledger on."""
        from local_mcp_gateway.migrate.replay import replay_on

        replay_on(scratch, self.texts_from(number), run=run, schema_only=True)

    @contextmanager
    def without_absent(self) -> Iterator[tuple[str, ...]]:
        """Remove the journal entries of deleted files: their author deleted the migration.

        Yields their tags. If the block fails, the journal is as it was.
        """
        journal = self.folder / "meta" / "_journal.json"
        before = journal.read_bytes() if journal.exists() else None
        absent = read_folder(self.folder, journal_new_files=True).absent
        gone = tuple(entry.tag for entry in absent)
        try:
            if before is not None and gone:
                content: dict[str, Any] = parse_json(before)
                content["entries"] = [e for e in content["entries"] if e["tag"] not in gone]
                text = json.dumps(content, indent=2, ensure_ascii=False)
                replace_durably(journal, text.encode())
            yield gone
        except BaseException:
            if before is not None and journal.read_bytes() != before:
                replace_durably(journal, before)
            raise


def _as_applied(folder: Path, row: Applied, idx: int, sql: str, downs: dict[str, str]) -> Migration:
    """Return a row of the ledger as the migration that it was.

    A down file from the history takes precedence; one that was written since is better than none.
    """
    tag = _name(row)
    file = folder / f"{tag}.down.sql"
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
