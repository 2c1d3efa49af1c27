"""Build the database that replaces the old one in a rewind, beside it.

restore point → apply the folder as a start does → carry over newer rows → check and flush.
This needs no rehearsal of its own: the live file is untouched until the one rename.

A restore point is a state of the database before the migrations to be reverted. Down files are tried
first, since they undo nothing but the migrations; then the newest backup from before. Before the first
migration of all the database was empty, so there is always a restore point.
"""

from __future__ import annotations

import os
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from local_mcp_gateway.backup import (
    checked_hash,
    copy_bytes,
    copy_online,
    list_backups,
    make_folder,
    named_failures,
    rebase_rows,
    rows_lost,
    temporary_file,
    temporary_path,
)
from local_mcp_gateway.database import (
    Phases,
    Run,
    no_report,
    open_immutable,
    open_scratch,
    reading,
    staged_transaction,
    translated_errors,
)
from local_mcp_gateway.errors import BackupDamaged, BackupFailed, GatewayError
from local_mcp_gateway.guard.down import go_back_on_copy
from local_mcp_gateway.guard.guard import apply_pending, make_plan
from local_mcp_gateway.guard.rehearse import rehearse_on, report_hazards
from local_mcp_gateway.migrate import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from local_mcp_gateway.backup import Backup, DataLoss
    from local_mcp_gateway.guard.context import GuardContext
    from local_mcp_gateway.log import Emit
    from local_mcp_gateway.migrate import Divergence, Plan, Step


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
        yield RestorePoint(
            "down",
            partial(_by_downs, context, divergence),
            divergence.kept,
            goes_back=False,
        )
    for backup, held in _from_before(context, divergence):
        by = f"backup {backup.name}"
        yield RestorePoint(by, partial(_by_backup, backup), held, backup=backup.name)
    yield RestorePoint("replay on an empty database", _from_nothing, 0, fresh=True)


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
        with named_failures("copy the backup to", path):
            copy_bytes(backup.path, descriptor)
            return checked_hash(path, "quick_check") == backup.sha256
    except (BackupDamaged, BackupFailed):
        return False  # damaged since: try an older one


def _from_nothing(path: Path, descriptor: int) -> bool:
    del path, descriptor
    return True


def _from_before(context: GuardContext, divergence: Divergence) -> Iterator[tuple[Backup, int]]:
    """Yield the backups, newest first, that hold only ledger rows that stay, and how many of them."""
    kept = [row.hash for row in divergence.rows[: divergence.kept]]
    for backup in list_backups(context.database, context.backup_folder):
        try:
            with (
                named_failures("read the backup", backup.path),
                closing(open_immutable(backup.path)) as reader,
            ):
                held = [row.hash for row in Ledger(reader).rows(brief=True)]
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
                context.database, base, staged, prepare=context.prepare, ignored=Ledger.TABLES
            )
        lost = _lost(context, staged)
    with named_failures("finish", staged):
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
            rehearsal = rehearse_on(on_staged, staged, plan)
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
    with named_failures("write a copy for the comparison into", folder):
        make_folder(folder)
        with temporary_file(base) as descriptor:
            point.make(base, descriptor)
            with (
                suppress(GatewayError),
                translated_errors(base),
                closing(open_scratch(base)) as scratch,
            ):
                context.prepare(scratch)
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
