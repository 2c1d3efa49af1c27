"""Rehearse pending migrations on a copy of real data (`db rehearse`), and report rows and times."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from local_mcp_gateway.backup import require_room, room_needed
from local_mcp_gateway.backup.create import copy_online
from local_mcp_gateway.backup.files import (
    existing_folder,
    make_folder,
    named_failures,
    temporary_file,
    temporary_path,
)
from local_mcp_gateway.database.connections import reading
from local_mcp_gateway.guard.plan import make_plan
from local_mcp_gateway.guard.rehearse import HazardWatch, rehearse_on
from local_mcp_gateway.migrate.verify import count_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from local_mcp_gateway.database.connections import Connection
    from local_mcp_gateway.guard.context import GuardContext, Plan, Rehearsal
    from local_mcp_gateway.migrate.folder import Migration


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
    """None: nothing is pending."""
    tables: tuple[TableRows, ...]
    """Every table, before the first and after the last migration."""
    changed: Mapping[str, tuple[TableRows, ...]]
    """Tag → the tables whose number of rows this migration changed."""
    bytes_before: int
    bytes_after: int

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
        with named_failures("write a copy for the rehearsal into", folder):
            make_folder(folder)
            stack.enter_context(temporary_file(path))
            copy_online(source, path, run=replace(context, progress=copied))
        yield replace(context, database=path)


def _run(on_copy: GuardContext, source: Path) -> DryRun:
    copy = on_copy.database
    with reading(copy) as reader:
        before = dict(count_rows(reader).rows)
    size = copy.stat().st_size
    plan = make_plan(on_copy, fresh=False)
    if not plan.pending:
        return DryRun(source, None, (), {}, size, size)
    watch = _RowCounter(on_copy, plan, before)
    rehearsal = rehearse_on(on_copy, copy, plan, watch)
    tables = _compared(before, watch.rows)
    return DryRun(source, rehearsal, tables, watch.changed, size, copy.stat().st_size)


class _RowCounter(HazardWatch):
    """Counts the rows of every table after each migration."""

    def __init__(self, context: GuardContext, plan: Plan, rows: Mapping[str, int]) -> None:
        super().__init__(context, plan)
        self.rows = rows
        self.changed: dict[str, tuple[TableRows, ...]] = {}

    def after_migration(self, connection: Connection, migration: Migration) -> None:
        """Count them."""
        super().after_migration(connection, migration)
        rows = count_rows(connection).rows
        self.changed[migration.tag] = tuple(
            table for table in _compared(self.rows, rows) if table.before != table.after
        )
        self.rows = rows


def _compared(before: Mapping[str, int], after: Mapping[str, int]) -> tuple[TableRows, ...]:
    return tuple(TableRows(t, before.get(t), after.get(t)) for t in sorted({*before, *after}))
