"""Dev mode's way back: an applied migration was edited, deleted, or another branch was checked out.

What is applied and the folder agree up to a point; everything after it is taken back, then the folder
is applied as usual. The way back is the migrations' downs, as the history kept them, which keep the
rows of other tables; where there is none, it is the newest backup from before. Both the way back and
the folder are tried on a copy first, so a broken edit takes nothing back; and the copy, compared with
the database, tells which rows are lost. Never done by a production start.

A start does not know why the folder differs: it may be an older checkout. So it takes back what was
edited, and what dev mode itself has applied; anything else is refused as in production.
"""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from local_mcp_gateway.backup import list_backups, scratch_copy
from local_mcp_gateway.backup.durable import named_failures
from local_mcp_gateway.backup.losses import losses
from local_mcp_gateway.backup.restore import restore
from local_mcp_gateway.backup.verify import open_immutable
from local_mcp_gateway.database.connect import reading
from local_mcp_gateway.errors import GatewayError, HistoryRefused, NoWayBack, ProblemCode
from local_mcp_gateway.guard.down import go_back_held, go_back_on_copy
from local_mcp_gateway.guard.hazards import face_hazards
from local_mcp_gateway.guard.read import read
from local_mcp_gateway.guard.rehearse import rehearse_on
from local_mcp_gateway.guard.report import Phases
from local_mcp_gateway.guard.restore import note_restore
from local_mcp_gateway.guard.trial import copy_of
from local_mcp_gateway.log import ignore
from local_mcp_gateway.migrate.agreed import agreed
from local_mcp_gateway.migrate.folder import NEW, Migration, read_folder
from local_mcp_gateway.migrate.history import applied_downs, kept_texts
from local_mcp_gateway.migrate.journal import Entry, replace_durably, write_journal
from local_mcp_gateway.migrate.ledger import GUARD_TABLES, Applied, read_ledger
from local_mcp_gateway.migrate.resolve import AppliedMigration, Resolution, match

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.backup.losses import Loss
    from local_mcp_gateway.guard.attempt import Attempt
    from local_mcp_gateway.guard.values import Plan


@dataclass(frozen=True, slots=True)
class Course:
    """What is to be taken back."""

    rows: tuple[Applied, ...]
    """The whole ledger, in the order in which it was written."""
    kept: int
    """How many of the rows, from the first one on, stay."""
    history: Resolution
    """The ledger as a resolution, with the texts that were applied."""
    complete: bool
    """The text of everything that was applied is known."""

    @property
    def tags(self) -> tuple[str, ...]:
        """Return what is taken back, oldest first."""
        return tuple(_name(row) for row in self.rows[self.kept :])


@dataclass(frozen=True, slots=True)
class Rewound:
    """What was taken back, how, and at which price."""

    tags: tuple[str, ...]
    by: str
    lost: tuple[Loss, ...]
    replaced: Path | None = None
    """Where the database from before is kept; None where a backup of it was made instead."""

    def as_fields(self) -> dict[str, object]:
        """Return the keys of `migration.rewound`."""
        lost = "; ".join(map(str, self.lost))
        return {
            "migrations": list(self.tags),
            "by": self.by,
            "replaced": str(self.replaced) if self.replaced else None,
            "message": f"Lost: {lost}." if lost else "No row was lost.",
        }


def read_in_dev(attempt: Attempt, *, fresh: bool) -> Plan:
    """Make the plan of a start or of a save in dev mode.

    A start rewinds where a save has its own way (its connections have to be closed first). A file that
    was applied and whose journal entry is gone, as after a stash, gets it back.
    """
    try:
        plan = read(attempt, fresh=fresh)
    except HistoryRefused:
        if attempt.serving or fresh or not rewind_at_start(attempt):
            raise
        plan = read(attempt, fresh=fresh)
    lost = [entry for entry in plan.resolution.applied if entry.migration.idx == NEW]
    if not lost:
        return plan
    entries = [Entry(idx, e.tag, e.created_at) for idx, e in enumerate(lost, plan.next_idx)]
    write_journal(attempt.migrations, entries)
    return read(attempt, fresh=fresh)


def find_course(attempt: Attempt, *, at_start: bool) -> Course | None:
    """Return what has to be taken back; None when that would not mend what was refused.

    Nothing for a folder that cannot be read as it is: a journal that is no JSON is no wish to go back.
    """
    folder = read_folder(attempt.migrations, journal_new_files=True)
    if any(problem.code != ProblemCode.MISSING for problem in folder.problems):
        return None
    with reading(attempt.database, locked=True) as reader:
        rows = read_ledger(reader)
        texts = kept_texts(reader)
        downs = applied_downs(reader, [row.tag for row in rows if row.tag])
    kept = agreed(folder, rows)
    _, _, strangers = match(folder, rows)
    if kept == len(rows) and not (folder.absent and not at_start):
        return None
    if at_start and not all((found := texts.get(row[:2])) and found.in_dev for row in strangers):
        return None
    by_hash = {migration.hash: migration for migration in folder.migrations}
    applied = []
    for idx, row in enumerate(rows):
        text = texts.get(row[:2])
        same = by_hash.get(row.hash)
        sql = text.sql if text else same.sql if same else ""
        applied.append(AppliedMigration(_as_applied(attempt, row, idx, sql, downs), row))
    complete = all(row[:2] in texts or row.hash in by_hash for row in rows)
    return Course(rows, kept, Resolution(tuple(applied), (), ()), complete)


def rewind(attempt: Attempt, course: Course) -> Rewound:
    """Take it back; the caller holds the lock, and has no connection open. Blocks.

    Raises what the trial raised, or NoWayBack, with database and journal as they were.
    """
    journal = attempt.migrations / "meta" / "_journal.json"
    before = journal.read_bytes() if journal.exists() else None
    gone = _forget_absent(attempt.migrations)
    try:
        if course.kept == len(course.rows):
            return Rewound(gone, "journal: it was never applied", ())
        return _by_downs(attempt, course) or _by_backup(attempt, course)
    except BaseException:
        if before is not None and journal.read_bytes() != before:
            replace_durably(journal, before)
        raise


def rewind_at_start(attempt: Attempt) -> bool:
    """Rewind before anything is served, and report it; False when the refusal stands."""
    course = find_course(attempt, at_start=True)
    if course is None:
        return False
    with attempt.phases.measured("rewind"):
        done = rewind(replace(attempt, emit=ignore), course)
    attempt.emit("migration.rewound", **done.as_fields())
    return True


def _by_downs(attempt: Attempt, course: Course) -> Rewound | None:
    """Take the tags back by their downs; None where one is missing or does not lead back."""
    steps = len(course.tags)
    if not course.complete:
        return None
    with copy_of(attempt, attempt.database) as on_copy:
        try:
            go_back_on_copy(on_copy, course.history, steps=steps)
        except GatewayError:
            return None
        lost = _try_folder(attempt, on_copy.database)
    _, backup = go_back_held(attempt, course.history, steps=steps)
    return Rewound(course.tags, "down", lost, backup.path if backup else None)


def _by_backup(attempt: Attempt, course: Course) -> Rewound:
    """Put the newest backup from before all of the tags in the database's place."""
    backup = next(_from_before(attempt, course), None)
    if backup is None:
        first = course.tags[0]
        raise NoWayBack(
            f"{first} cannot be taken back: there is neither a way back nor a backup from before.",
            hint=f"Write {first}.down.sql, bring its old text back, or start afresh with `db reset`.",
        )
    with scratch_copy(backup) as copy:
        lost = _try_folder(attempt, copy)
    note = partial(note_restore, backup=backup, program_version=attempt.policy.program_version)
    done = restore(attempt.database, backup, annotate=note, keep_aside=attempt.policy.keep_aside)
    return Rewound(course.tags, f"backup {backup.name}", lost, done.aside)


def _from_before(attempt: Attempt, course: Course) -> Iterator[Backup]:
    """Yield the backups, newest first, that hold nothing but the beginning that stays."""
    kept = [row.hash for row in course.rows[: course.kept]]
    for backup in list_backups(attempt.database, attempt.backup_folder):
        try:
            with (
                named_failures("read the backup", backup.path),
                closing(open_immutable(backup.path)) as reader,
            ):
                held = [row.hash for row in read_ledger(reader, brief=True)]
        except GatewayError:
            continue  # damaged since: an older one may do
        if held == kept[: len(held)]:
            yield backup


def _try_folder(attempt: Attempt, copy: Path) -> tuple[Loss, ...]:
    """Apply the folder to the copy as a start would; return what the database has and the copy lacks."""
    on_copy = replace(attempt, database=copy, emit=ignore, phases=Phases())
    plan = read(on_copy, fresh=False)
    if plan.pending:
        face_hazards(on_copy, plan, rehearse_on(on_copy, copy, plan), None)
    return losses(attempt.database, copy, ignored=GUARD_TABLES, locked=True)


def _as_applied(
    attempt: Attempt, row: Applied, idx: int, sql: str, downs: dict[str, str]
) -> Migration:
    """Return a row of the ledger as the migration that it was.

    The way back that the history kept comes first; one that was written since is better than none.
    """
    tag = _name(row)
    file = attempt.migrations / f"{tag}.down.sql"
    written = str(file) if tag not in downs and file.exists() else None
    return Migration(tag, idx, row.created_at, row.hash, sql, f"{tag}.sql", written)


def _forget_absent(folder: Path) -> tuple[str, ...]:
    """Take the journal's entries of deleted files out: their author deleted the migration."""
    gone = tuple(entry.tag for entry in read_folder(folder, journal_new_files=True).absent)
    if gone:
        file = folder / "meta" / "_journal.json"
        journal: dict[str, Any] = json.loads(file.read_bytes())
        journal["entries"] = [entry for entry in journal["entries"] if entry["tag"] not in gone]
        replace_durably(file, json.dumps(journal, indent=2, ensure_ascii=False).encode())
    return gone


def _name(row: Applied) -> str:
    return row.tag or row.hash[:12]
