"""Dev mode's way back: an applied migration was edited, deleted, or another branch was checked out.

What is applied and the folder agree up to a point; everything after it is taken back, then the folder
is applied as usual. Both are done beside the database: from a state before that point (`beginnings`)
the folder makes a new one, what was written meanwhile is carried into it, and one rename puts it in the
old one's place, which stays beside it. So a broken edit takes nothing back, a kill leaves the old
database or the new one, and the comparison of the two tells which rows are lost. Never done by a
production start.

A start does not know why the folder differs: it may be an older checkout. So it takes back what was
edited, and what dev mode itself has applied; anything else is refused as in production.
"""

from __future__ import annotations

import json
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from local_mcp_gateway.backup import names
from local_mcp_gateway.backup.durable import named_failures, temporary_file
from local_mcp_gateway.backup.room import MARGIN_BYTES, database_bytes, require_free
from local_mcp_gateway.backup.swap import hold_still, prune_asides, swap
from local_mcp_gateway.database.connect import open_migration
from local_mcp_gateway.database.faults import explained
from local_mcp_gateway.errors import HistoryRefused
from local_mcp_gateway.guard.backup import back_up_now
from local_mcp_gateway.guard.beginnings import beginnings
from local_mcp_gateway.guard.course import find_course
from local_mcp_gateway.guard.read import read
from local_mcp_gateway.guard.rebuild import rebuild
from local_mcp_gateway.migrate.folder import NEW, read_folder
from local_mcp_gateway.migrate.journal import Entry, replace_durably, write_journal

if TYPE_CHECKING:
    from pathlib import Path

    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.backup.losses import Loss
    from local_mcp_gateway.guard.attempt import Attempt
    from local_mcp_gateway.guard.course import Course
    from local_mcp_gateway.guard.values import Plan
    from local_mcp_gateway.migrate.apply import Step


@dataclass(frozen=True, slots=True)
class Rewound:
    """What was taken back, how, and at which price; and what was applied in its place."""

    tags: tuple[str, ...]
    by: str
    lost: tuple[Loss, ...] = ()
    steps: tuple[Step, ...] = ()
    replaced: Path | None = None
    """Where the database from before is kept, until a few others are."""
    backup: Backup | None = None
    """Of the database from before, where something was lost: it is kept as long as any."""
    unchanged: frozenset[str] = frozenset()
    """Those of the steps that only ran again, with the text that they had."""

    def as_fields(self) -> dict[str, object]:
        """Return the keys of `migration.rewound`."""
        lost = "; ".join(map(str, self.lost))
        return {
            "migrations": list(self.tags),
            "by": self.by,
            "replaced": str(self.replaced) if self.replaced else None,
            "message": f"Lost: {lost}." if lost else "No row was lost.",
            "hint": f"`db restore {self.backup.name}` has it back, with the files as they were."
            if self.backup
            else None,
        }


def read_in_dev(attempt: Attempt, *, fresh: bool) -> tuple[Plan, tuple[Step, ...]]:
    """Make the plan of a start or of a save in dev mode; return it with what a rewind has applied.

    A start rewinds where a save has its own way (its connections have to be closed first). A file that
    was applied and whose journal entry is gone, as after a stash, gets it back.
    """
    steps: tuple[Step, ...] = ()
    try:
        plan = read(attempt, fresh=fresh)
    except HistoryRefused:
        done = None if attempt.serving or fresh else _rewind_at_start(attempt)
        if done is None:
            raise
        steps = done.steps
        plan = read(attempt, fresh=fresh)
    lost = [entry for entry in plan.resolution.applied if entry.migration.idx == NEW]
    if not lost:
        return plan, steps
    entries = [Entry(idx, e.tag, e.created_at) for idx, e in enumerate(lost, plan.next_idx)]
    write_journal(attempt.migrations, entries)
    return read(attempt, fresh=fresh), steps


def rewind(attempt: Attempt, course: Course) -> Rewound:
    """Take it back and apply the folder; the caller holds the lock, and has no connection open. Blocks.

    Raises what applying the folder raises, with database and journal as they were.
    """
    journal = attempt.migrations / "meta" / "_journal.json"
    before = journal.read_bytes() if journal.exists() else None
    gone = _forget_absent(attempt.migrations)
    try:
        if course.kept == len(course.rows):
            return Rewound(gone, "journal: it was never applied")
        with explained(attempt.database):
            return _replace(attempt, course)
    except BaseException:
        if before is not None and journal.read_bytes() != before:
            replace_durably(journal, before)
        raise


def _replace(attempt: Attempt, course: Course) -> Rewound:
    """Build the new database from the first beginning that can be had, and swap the two."""
    real = attempt.database.resolve()
    staged = names.staged(real)
    for folder in {real.parent, attempt.backup_folder}:
        require_free(folder, database_bytes(real) + MARGIN_BYTES, what="the rewound database")
    with ExitStack() as writers_out:
        live = writers_out.enter_context(closing(open_migration(real)))
        seen = hold_still(live, real)
        for beginning in beginnings(attempt, course):
            with named_failures("write", staged), temporary_file(staged) as descriptor:
                done = rebuild(attempt, beginning, staged, descriptor)
                if done is None:
                    continue
                backup = _saved(attempt, course) if done.lost else None
                writers_out.close()
                aside = names.set_aside(real, datetime.now(UTC))
                swap(real, staged, aside=aside, seen=seen)
            prune_asides(real, max(attempt.policy.keep_aside, 1))
            unchanged = course.unchanged(attempt.migrations)
            return Rewound(
                course.tags, beginning.by, done.lost, done.steps, aside, backup, unchanged
            )
    raise AssertionError("an empty database is always a beginning")


def _saved(attempt: Attempt, course: Course) -> Backup:
    """Back up what is about to be replaced; the caller holds SQLite's write lock."""
    return back_up_now(
        attempt.database,
        backup_folder=attempt.backup_folder,
        program_version=attempt.policy.program_version,
        before=f"rewind-{course.tags[0]}",
        stop=attempt.stop,
    )


def _rewind_at_start(attempt: Attempt) -> Rewound | None:
    """Rewind before anything is served, and report it; None when the refusal stands."""
    course = find_course(attempt, at_start=True)
    if course is None:
        return None
    with attempt.phases.measured("rewind"):
        done = rewind(attempt, course)
    attempt.emit("migration.rewound", **done.as_fields())
    for step in done.steps:
        attempt.emit("migration.applied", **step.as_fields())
    return done


def _forget_absent(folder: Path) -> tuple[str, ...]:
    """Take the journal's entries of deleted files out: their author deleted the migration."""
    gone = tuple(entry.tag for entry in read_folder(folder, journal_new_files=True).absent)
    if gone:
        file = folder / "meta" / "_journal.json"
        journal: dict[str, Any] = json.loads(file.read_bytes())
        journal["entries"] = [entry for entry in journal["entries"] if entry["tag"] not in gone]
        replace_durably(file, json.dumps(journal, indent=2, ensure_ascii=False).encode())
    return gone
