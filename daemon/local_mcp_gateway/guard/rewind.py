"""Rewind in dev mode: revert applied migrations that were edited, deleted, or belong to another branch.

The applied migrations and the folder agree up to a point. Everything after it is reverted, then the
folder is applied as usual. Both happen next to the database:
restore point → apply the folder as a start does → carry over newer rows → check and flush → one rename.
So a broken edit reverts nothing, a kill leaves the old database or the new one, and comparing the two
shows which rows are lost. The old database is kept next to the new one. A production start never rewinds.

A start does not know why the folder differs: it may be an older checkout. So it reverts only edited
migrations and those that dev mode applied; anything else is refused as in production.

A restore point is a state of the database before the migrations to be reverted. Down files are tried
first, since they undo nothing but the migrations; then the newest backup from before. Before the first
migration of all the database was empty, so there is always a restore point.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from local_mcp_gateway.backup import (
    MARGIN_BYTES,
    aside_path,
    checked_hash,
    copy_online,
    hold_still,
    list_backups,
    make_folder,
    named_failures,
    prune_asides,
    rebase_rows,
    require_free,
    rows_lost,
    staged_path,
    swap,
    temporary_file,
    temporary_path,
)
from local_mcp_gateway.database import (
    Phases,
    Run,
    database_bytes,
    has_content,
    no_report,
    open_immutable,
    open_migration,
    open_scratch,
    reading,
    staged_transaction,
    translated_errors,
)
from local_mcp_gateway.errors import (
    BackupDamaged,
    BackupFailed,
    GatewayError,
    MigrationApplied,
)
from local_mcp_gateway.guard.commands import back_up_now
from local_mcp_gateway.guard.down import go_back_on_copy
from local_mcp_gateway.guard.guard import apply_pending, make_plan
from local_mcp_gateway.guard.rehearse import rehearse_on, report_hazards
from local_mcp_gateway.migrate import Divergence, Ledger, read_folder
from local_mcp_gateway.regular_file import copy_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from local_mcp_gateway.backup import Backup, DataLoss
    from local_mcp_gateway.guard.context import GuardContext
    from local_mcp_gateway.log import Emit
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
            with named_failures(staged, doing="write"), temporary_file(staged) as descriptor:
                done = rewind_database(context, divergence, point, staged, descriptor)
                if done is None:
                    continue
                before, silent = f"rewind-{divergence.tags[0]}", replace(context, emit=no_report)
                backup = back_up_now(silent, before=before) if done.lost else None
                writers_out.close()
                aside = aside_path(real, datetime.now(UTC))
                swap(real, staged, aside=aside, seen=seen)
            prune_asides(real, max(context.policy.keep_aside, 1))
            unchanged = divergence.unchanged()
            return Rewound(
                divergence.tags, point.by, done.lost, done.steps, aside, backup, unchanged
            )
    raise AssertionError("an empty database is always a restore point")


def rewind_at_start(context: GuardContext) -> Rewound | None:
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


@dataclass(frozen=True, slots=True)
class RestorePoint:
    """An earlier state of the database."""

    by: str
    make: Callable[[Path, int], bool]
    """Write it into this empty file, which has one open descriptor; False if it is not available."""
    held: int
    """How many rows of the ledger it has, from the first on."""
    fresh: bool = False
    """The database is empty."""
    backup: str | None = None
    goes_back: bool = True
    """Its history lacks what happened since."""


def restore_points(context: GuardContext, divergence: Divergence) -> Iterator[RestorePoint]:
    """Yield the restore points in the order in which to try them."""
    if divergence.complete:
        by_downs = partial(_by_downs, context, divergence)
        yield RestorePoint("down", by_downs, divergence.kept, goes_back=False)
    for backup, held in _from_before(context, divergence):
        by = f"backup {backup.name}"
        yield RestorePoint(by, partial(_by_backup, backup), held, backup=backup.name)
    yield RestorePoint("replay on an empty database", lambda *_: True, 0, fresh=True)


def _by_downs(context: GuardContext, divergence: Divergence, path: Path, descriptor: int) -> bool:
    del descriptor
    copy_online(context.database, path, run=Run(stop=context.stop))
    try:
        on_copy = replace(context, database=path, emit=no_report)
        go_back_on_copy(on_copy, divergence)
    except GatewayError:
        return False  # one is missing, or does not revert its migration
    return True


def _by_backup(backup: Backup, path: Path, descriptor: int) -> bool:
    try:
        with named_failures(path, doing="copy the backup to"):
            copy_bytes(backup.path, descriptor)
            return checked_hash(path, "quick_check") == backup.sha256
    except (BackupDamaged, BackupFailed):
        return False  # damaged since: try an older one


def _from_before(context: GuardContext, divergence: Divergence) -> Iterator[tuple[Backup, int]]:
    """Yield the backups, newest first, that hold only ledger rows that stay, and how many of them."""
    kept = [row.hash for row in divergence.rows[: divergence.kept]]
    for backup in list_backups(context.database, context.backup_folder):
        try:
            with (
                named_failures(backup.path, doing="read the backup"),
                closing(open_immutable(backup.path)) as reader,
            ):
                held = [row.hash for row in Ledger(reader).rows(details=False)]
        except GatewayError:
            continue
        if held == kept[: len(held)]:
            yield backup, len(held)


@dataclass(frozen=True, slots=True)
class RewoundDatabase:
    """A finished database that is not in use yet."""

    steps: tuple[Step, ...]
    lost: tuple[DataLoss, ...]


@dataclass(frozen=True, slots=True)
class _Applied:
    steps: tuple[Step, ...]
    plan: Plan | None
    """What was applied; what of it is new has to be journaled."""
    since: int
    """The last row of the history before these."""
    sealed: bool
    """The schema is what the migrations make."""


def rewind_database(
    context: GuardContext,
    divergence: Divergence,
    point: RestorePoint,
    staged: Path,
    descriptor: int,
) -> RewoundDatabase | None:
    """Build the new database in the empty file `staged`; None if the restore point is not available.

    The caller holds the lock, and SQLite's write lock. Raises what applying the folder raises. The
    journal is written last: new files are in it before the database takes its place.
    """
    if not point.make(staged, descriptor):
        return None
    done = _apply_folder(context, staged, fresh=point.fresh)
    lost = _lost(context, staged)
    if lost:
        with _as_it_came_to_be(context, divergence, point) as base:
            rebase_rows(
                context.database,
                base,
                staged,
                prepare=context.policy.prepare,
                ignored=Ledger.TABLES,
            )
        lost = _lost(context, staged)
    with named_failures(staged, doing="finish"):
        _finish(context, point, staged, done)
    context.checkpoint()
    if done.plan is not None:
        done.plan.journal_new(done.plan.pending)
    return RewoundDatabase(done.steps, lost)


def _apply_folder(context: GuardContext, staged: Path, *, fresh: bool) -> _Applied:
    on_staged = replace(context, database=staged, emit=no_report, phases=Phases())
    since = 0
    applied: Plan | None = None
    steps: tuple[Step, ...] = ()
    if fresh:
        # Not reported yet: what a rehearsal refuses may be fine on a new database.
        on_staged = replace(on_staged, emit=_only_hazards(context))
        steps = apply_pending(on_staged, make_plan(on_staged, fresh=True), fresh=True).applied
    else:
        with reading(staged, locked=True) as reader:
            since = Ledger(reader).last_event()
        plan = make_plan(on_staged, fresh=False)
        if plan.pending:
            rehearsal = rehearse_on(on_staged, staged, plan, is_kept=True)
            report_hazards(context, rehearsal, None)
            applied, steps = plan, rehearsal.steps
    with reading(staged, locked=True) as reader:
        sealed = Ledger(reader).recorded_fingerprint() is not None
    return _Applied(steps, applied, since, sealed)


def _lost(context: GuardContext, staged: Path) -> tuple[DataLoss, ...]:
    return rows_lost(context.database, staged, ignored=Ledger.TABLES, locked=True)


@contextmanager
def _as_it_came_to_be(
    context: GuardContext, divergence: Divergence, point: RestorePoint
) -> Iterator[Path]:
    """Yield the database as the old texts made it, without user data, to compare with."""
    folder = context.backup_folder
    stem = context.database.resolve().stem
    base = temporary_path(folder / f"{stem}-base-{os.getpid()}.db")
    with named_failures(folder, doing="write a copy for the comparison into"):
        make_folder(folder)
        with temporary_file(base) as descriptor:
            point.make(base, descriptor)
            with (
                suppress(GatewayError),
                translated_errors(base),
                closing(open_scratch(base)) as scratch,
            ):
                context.policy.prepare(scratch)
                divergence.replay_from(point.held, scratch, run=context)
            yield base


def _finish(context: GuardContext, point: RestorePoint, staged: Path, done: _Applied) -> None:
    """Complete the history, and leave the file whole, flushed, and in the old one's journal mode."""
    with (
        reading(context.database, locked=True) as live,
        staged_transaction(staged, like=context.database, run=context) as fresh,
    ):
        ledger = context.ledger(fresh)
        ledger.ensure()
        if point.goes_back:
            ledger.continue_from(Ledger(live), since=done.since, backup=point.backup)
        if done.sealed:
            ledger.record_fingerprint(ledger.fingerprint())


def _only_hazards(context: GuardContext) -> Emit:
    def emit(event: str, /, **fields: object) -> None:
        if event == "guard.hazard_found":
            context.emit(event, **fields)

    return emit
