"""Rewind in dev mode: revert applied migrations that were edited, deleted, or belong to another branch.

The applied migrations and the folder agree up to a point. Everything after it is reverted, then the
folder is applied as usual. Both happen beside the database: the folder is applied to a state from
before that point (`restore_points`), newer rows are carried over, and one rename replaces the old
database, which is kept beside it. So a broken edit reverts nothing, a kill leaves the old database or
the new one, and comparing the two shows which rows are lost. A production start never rewinds.

A start does not know why the folder differs: it may be an older checkout. So it reverts only edited
migrations and those that dev mode applied; anything else is refused as in production.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from local_mcp_gateway.backup import (
    MARGIN_BYTES,
    aside_path,
    hold_still,
    named_failures,
    prune_asides,
    require_free,
    staged_path,
    swap,
    temporary_file,
)
from local_mcp_gateway.database import (
    database_bytes,
    has_content,
    no_report,
    open_migration,
    reading,
    translated_errors,
)
from local_mcp_gateway.errors import HistoryRefused, MigrationApplied
from local_mcp_gateway.guard.commands import back_up_now
from local_mcp_gateway.guard.guard import make_plan
from local_mcp_gateway.guard.rebuild import restore_points, rewind_database
from local_mcp_gateway.migrate import Divergence, read_folder

if TYPE_CHECKING:
    from local_mcp_gateway.backup import Backup, DataLoss
    from local_mcp_gateway.guard.context import GuardContext
    from local_mcp_gateway.migrate import Plan, Step


@dataclass(frozen=True, slots=True)
class Rewound:
    """What was reverted, how, what was lost, and what was applied instead."""

    tags: tuple[str, ...]
    by: str
    lost: tuple[DataLoss, ...] = ()
    steps: tuple[Step, ...] = ()
    replaced: Path | None = None
    """Where the previous database is kept; only a few are."""
    backup: Backup | None = None
    """Of the previous database, if something was lost; kept by the usual retention."""
    unchanged: frozenset[str] = frozenset()
    """Those of the steps that only ran again, with unchanged text."""

    def as_fields(self) -> dict[str, object]:
        """Return the keys of `migration.rewound`."""
        lost = "; ".join(map(str, self.lost))
        return {
            "migrations": list(self.tags),
            "by": self.by,
            "replaced": str(self.replaced) if self.replaced else None,
            "message": f"Lost: {lost}." if lost else "No row was lost.",
            "hint": f"`db restore {self.backup.name}` brings it back, with the files as they were."
            if self.backup
            else None,
        }


def make_plan_in_dev(context: GuardContext, *, fresh: bool) -> Plan:
    """Make the plan of a start or a save in dev mode, after a rewind if one is needed.

    A start rewinds here; a save does it separately, since its connections have to be closed first. A
    file that was applied and whose journal entry is gone, as after a stash, gets it back.
    """
    done: tuple[Step, ...] = ()
    try:
        plan = make_plan(context, fresh=fresh)
    except HistoryRefused:
        rewound = None if context.serving or fresh else _rewind_at_start(context)
        if rewound is None:
            raise
        done = rewound.steps
        plan = make_plan(context, fresh=fresh)
    if plan.journal_applied():
        plan = make_plan(context, fresh=fresh)
    return plan._replace(done=done)


def find_divergence(context: GuardContext, *, at_start: bool) -> Divergence | None:
    """Return what must be reverted; None when that would not resolve the refusal."""
    with reading(context.database, locked=True) as reader:
        ledger = context.ledger(reader)
        return Divergence.find(context.migrations, ledger, at_start=at_start)


def rewind_to_folder(context: GuardContext, divergence: Divergence) -> Rewound:
    """Revert and apply the folder; the caller holds the lock, and has no connection open. Blocks.

    Raises what applying the folder raises, with database and journal as they were.
    """
    with divergence.without_absent() as gone:
        if divergence.kept == len(divergence.rows):
            return Rewound(gone, "journal: it was never applied")
        with translated_errors(context.database):
            return _replace(context, divergence)


def _replace(context: GuardContext, divergence: Divergence) -> Rewound:
    """Build the new database from the first available restore point, and swap the two."""
    real = context.database.resolve()
    staged = staged_path(real)
    for folder in {real.parent, context.backup_folder}:
        require_free(folder, database_bytes(real) + MARGIN_BYTES, what="the rewound database")
    with ExitStack() as writers_out:
        live = writers_out.enter_context(closing(open_migration(real)))
        seen = hold_still(live, real)
        for point in restore_points(context, divergence):
            with named_failures("write", staged), temporary_file(staged) as descriptor:
                done = rewind_database(context, divergence, point, staged, descriptor)
                if done is None:
                    continue
                backup = _saved(context, divergence) if done.lost else None
                writers_out.close()
                aside = aside_path(real, datetime.now(UTC))
                swap(real, staged, aside=aside, seen=seen)
            prune_asides(real, max(context.policy.keep_aside, 1))
            unchanged = divergence.unchanged()
            return Rewound(
                divergence.tags, point.by, done.lost, done.steps, aside, backup, unchanged
            )
    raise AssertionError("an empty database is always a restore point")


def _saved(context: GuardContext, divergence: Divergence) -> Backup:
    """Back up what is about to be replaced; the caller holds SQLite's write lock."""
    return back_up_now(replace(context, emit=no_report), before=f"rewind-{divergence.tags[0]}")


def _rewind_at_start(context: GuardContext) -> Rewound | None:
    """Rewind before anything is served, and report it; None when the refusal stands."""
    divergence = find_divergence(context, at_start=True)
    if divergence is None:
        return None
    context.phases.begin("rewind")
    done = rewind_to_folder(context, divergence)
    context.emit("migration.rewound", **done.as_fields())
    for step in done.steps:
        context.emit("migration.applied", **step.as_fields())
    return done


def drop_newest(context: GuardContext, tag: str) -> tuple[Rewound | None, tuple[Path, ...]]:
    """Revert the newest migration, if it is applied, and delete its files; return those. Blocks.

    The caller holds the lock, has no connection open, and keeps everything else from reading the
    folder. Raises what the rewind raises, with database and folder as they were.
    """
    folder = read_folder(context.migrations)
    newest = folder.newest(tag)
    done = None
    if has_content(context.database):
        with reading(context.database) as reader:
            applied = context.ledger(reader).has_applied(newest)
        if applied:
            done = _take_back(context, tag)
            if done is None:
                raise MigrationApplied(f"{context.database} has applied {tag}.", tag=tag)
    return done, folder.drop(newest)


def _take_back(context: GuardContext, tag: str) -> Rewound | None:
    with tempfile.TemporaryDirectory(prefix="local-mcp-gateway-") as place:
        without = Path(place) / "migrations"
        shutil.copytree(context.migrations, without)
        (without / f"{tag}.sql").unlink()
        on_copy = replace(context, migrations=without)
        divergence = find_divergence(on_copy, at_start=False)
        return rewind_to_folder(on_copy, divergence) if divergence else None
