"""Rehearse all pending migrations on a copy of the user's data, and report hazards.

A start rehearses on a copy of its backup and refuses hazards if the policy says so. `db rehearse` does
the same on an online copy of any database, and reports rows and times.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from local_mcp_gateway.backup import (
    copy_online,
    existing_folder,
    make_folder,
    named_failures,
    require_room,
    room_needed,
    scratch_copy,
    temporary_file,
    temporary_path,
)
from local_mcp_gateway.database import (
    kept_file,
    kept_journal_mode,
    open_scratch,
    reading,
    row_counts,
)
from local_mcp_gateway.errors import HazardRefused, MigrationFailed
from local_mcp_gateway.guard.guard import make_plan
from local_mcp_gateway.migrate import Ledger, Rehearsal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.database import Connection
    from local_mcp_gateway.guard.context import GuardContext
    from local_mcp_gateway.migrate import Plan


def rehearsal_is_due(context: GuardContext, plan: Plan) -> bool:
    """Return whether the policy wants this plan rehearsed.

    `auto` skips what cannot fail on data; a policy that refuses hazards has to know them first.
    """
    policy = context.policy
    if policy.rehearse == "always" or "refuse" in (policy.destructive, *policy.hazards.values()):
        return True
    return policy.rehearse == "auto" and not plan.is_data_independent


def rehearse_backup(
    context: GuardContext,
    backup: Backup,
    plan: Plan,
    untouched: Callable[[], Connection] | None = None,
) -> Rehearsal:
    """Apply everything pending to a copy of `backup`, with the same checks; remove the copy.

    `untouched` opens the backup itself. Raises what the live run would raise; the live file is untouched.
    """
    context.phases.begin("rehearse")
    context.progress("copy", 0, 0)
    with scratch_copy(backup) as copy:
        try:
            rehearsal = rehearse_on(context, copy, plan, untouched=untouched)
        except MigrationFailed as error:
            if not plan.applied and "already exists" in error.message:
                error.hint = (
                    "This database has tables but no record of migrations:"
                    " take it over with `db adopt`, which finds out how far it is."
                )
            raise
    context.emit(
        "migration.rehearsed",
        migrations=[step.tag for step in rehearsal.steps],
        statements=sum(step.statements for step in rehearsal.steps),
        hazards=len(rehearsal.hazards),
        duration_ms=round(rehearsal.duration_ms, 3),
    )
    context.checkpoint()
    return rehearsal


def rehearse_on(
    context: GuardContext,
    copy: Path,
    plan: Plan,
    *,
    untouched: Callable[[], Connection] | None = None,
    migrated: Callable[[Connection, str], None] | None = None,
    is_kept: bool = False,
) -> Rehearsal:
    """Apply everything pending to this file, which nobody else uses and which may be lost.

    `untouched` opens what it is a copy of. `migrated` is called with the tag after each migration. `is_kept`:
    the file is to take a database's place, so it raises DiskProblem if a write was lost.
    """
    journal_mode = kept_journal_mode(copy)
    opened = kept_file(copy) if is_kept else closing(open_scratch(copy))
    with opened as scratch:
        context.policy.prepare(scratch)
        return Rehearsal.of(
            plan,
            Ledger(scratch, program_version=context.policy.program_version),
            context.policy,
            migrated=migrated,
            untouched=untouched,
            journal_mode=journal_mode,
            run=context,
        )


def report_hazards(context: GuardContext, rehearsal: Rehearsal, backup: Backup | None) -> None:
    """Report each hazard and where the backup is; raise HazardRefused if the policy wants it accepted."""
    severity = context.policy.severity
    for found in rehearsal.noticed(severity).hazards:
        context.emit(
            "guard.hazard_found",
            tag=found.tag,
            kind=str(found.hazard.kind),
            object=found.hazard.object,
            message=found.hazard.message,
            backup=str(backup.path) if backup else None,
        )
    if refused := rehearsal.refusal(severity):
        raise refused


@dataclass(frozen=True, slots=True)
class TableRows:
    """How many rows a table has; None: the table does not exist."""

    table: str
    before: int | None
    after: int | None


@dataclass(frozen=True, slots=True)
class DryRun:
    """What the pending migrations did to a copy of `source`, which was only read."""

    source: Path
    rehearsal: Rehearsal | None
    """With the hazards that the policy does not ignore; None: nothing is pending."""
    tables: tuple[TableRows, ...]
    """Every table, before the first and after the last migration."""
    changed: Mapping[str, tuple[TableRows, ...]]
    """Tag → the tables whose number of rows this migration changed."""
    bytes_before: int
    bytes_after: int
    refused: HazardRefused | None = None
    """What a guarded start would raise because of one of them."""

    @property
    def bytes_needed(self) -> int:
        """Return the free space that a guarded start with these migrations needs at its peak.

        The backup, the rehearsed copy at its final size, and a WAL as large as the live file.
        """
        return room_needed(self.source) + self.bytes_after


def dry_run_on_copy(context: GuardContext, source: Path) -> DryRun:
    """Copy `source` (online, so it may be in use) and run what is pending on the copy.

    Takes no lock. The copy is in the backup folder and is removed afterwards. Raises what a guarded
    start would raise.
    """
    with copy_of(context, source) as on_copy:
        return _run(on_copy, source)


@contextmanager
def copy_of(context: GuardContext, source: Path) -> Iterator[GuardContext]:
    """Copy `source` into the backup folder, yield the same run on the copy, and remove it.

    Where that cannot be written, as on a read-only file system, the copy is a temporary file.
    """

    def copied(_phase: str, done: int, total: int) -> None:
        context.progress("copy", done, total)

    with reading(source):
        pass  # an error for an invalid file must name the source
    stem = context.database.resolve().stem
    with ExitStack() as stack:
        folder = context.backup_folder
        if not os.access(existing_folder(folder), os.W_OK):
            place = tempfile.TemporaryDirectory(prefix="local-mcp-gateway-")
            folder = Path(stack.enter_context(place))
        require_room(source, folder, rehearsed=False)
        path = temporary_path(folder / f"{stem}-trial-{os.getpid()}.db")
        with named_failures(folder, doing="write a copy for the rehearsal into"):
            make_folder(folder)
            stack.enter_context(temporary_file(path))
            copy_online(source, path, run=replace(context, progress=copied))
        yield replace(context, database=path)


def _run(on_copy: GuardContext, source: Path) -> DryRun:
    copy = on_copy.database
    with reading(copy) as reader:
        on_copy.policy.prepare(
            reader
        )  # an index that SQLite counts by may have a collation of its own
        before = _count(reader)
    size = copy.stat().st_size
    plan = make_plan(on_copy, fresh=False)
    if not plan.pending:
        return DryRun(source, None, (), {}, size, size)
    rows = before
    changed: dict[str, tuple[TableRows, ...]] = {}

    def migrated(connection: Connection, tag: str) -> None:
        nonlocal rows
        after = _count(connection)
        changed[tag] = tuple(t for t in _compared(rows, after) if t.before != t.after)
        rows = after

    rehearsal = rehearse_on(on_copy, copy, plan, migrated=migrated)
    tables = _compared(before, rows)
    return DryRun(
        source,
        rehearsal.noticed(on_copy.policy.severity),
        tables,
        changed,
        size,
        copy.stat().st_size,
        rehearsal.refusal(on_copy.policy.severity),
    )


def _count(connection: Connection) -> dict[str, int]:
    counts = row_counts(connection)
    return {table: rows for table, rows in counts.items() if table not in Ledger.TABLES}


def _compared(before: Mapping[str, int], after: Mapping[str, int]) -> tuple[TableRows, ...]:
    return tuple(TableRows(t, before.get(t), after.get(t)) for t in sorted({*before, *after}))
