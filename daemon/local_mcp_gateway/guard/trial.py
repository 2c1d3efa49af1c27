"""A rehearsal by itself: what is pending, tried on a copy of real data, with numbers to plan by."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from local_mcp_gateway.backup import names, require_room, room_needed
from local_mcp_gateway.backup.durable import make_folder, named_failures, temporary_file
from local_mcp_gateway.backup.snapshot import copy_online
from local_mcp_gateway.database.connect import reading
from local_mcp_gateway.guard.read import read
from local_mcp_gateway.guard.rehearse import rehearse_on
from local_mcp_gateway.migrate.verify import survey

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from local_mcp_gateway.database.connect import Connection
    from local_mcp_gateway.guard.attempt import Attempt
    from local_mcp_gateway.guard.values import Rehearsal


@dataclass(frozen=True, slots=True)
class TableRows:
    """How many rows a table has; None: it is not there."""

    table: str
    before: int | None
    after: int | None


@dataclass(frozen=True, slots=True)
class Trial:
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
        """Return the free room that a guarded start with these migrations takes at its peak.

        The backup, the rehearsed copy as it ends, and a log of the live file that may hold all of it.
        """
        return room_needed(self.source) + self.bytes_after


def try_on_copy(attempt: Attempt, source: Path) -> Trial:
    """Copy `source` (online, so it may be in use) and run what is pending on the copy.

    Takes no lock; the copy is in the backup folder and gone afterwards. Raises what a guarded start
    would raise.
    """
    with copy_of(attempt, source) as on_copy:
        return _run(on_copy, source)


@contextmanager
def copy_of(attempt: Attempt, source: Path) -> Iterator[Attempt]:
    """Copy `source` into the backup folder and yield the same attempt on the copy; then it is gone."""
    folder = attempt.backup_folder
    with reading(source):
        pass  # a file that is no database is said by its own name
    require_room(source, folder, rehearsed=False)
    stem = attempt.database.resolve().stem
    path = names.temporary(folder / f"{stem}-trial-{os.getpid()}.db")
    with ExitStack() as stack:
        with named_failures("write a copy for the rehearsal into", folder):
            make_folder(folder)
            stack.enter_context(temporary_file(path))
            copy_online(
                source,
                path,
                lambda done, total: attempt.progress("copy", done, total),
                stop=attempt.stop,
            )
        yield replace(attempt, database=path)


def _run(on_copy: Attempt, source: Path) -> Trial:
    copy = on_copy.database
    with reading(copy) as reader:
        before = dict(survey(reader).rows)
    size = copy.stat().st_size
    plan = read(on_copy, fresh=False)
    if not plan.pending:
        return Trial(source, None, (), {}, size, size)
    seen = [before]
    changed: dict[str, tuple[TableRows, ...]] = {}

    def count(connection: Connection, tag: str) -> None:
        seen.append(dict(survey(connection).rows))
        changed[tag] = tuple(
            rows for rows in _compared(seen[-2], seen[-1]) if rows.before != rows.after
        )

    rehearsal = rehearse_on(on_copy, copy, plan, after_each=count)
    tables = _compared(before, seen[-1])
    return Trial(source, rehearsal, tables, changed, size, copy.stat().st_size)


def _compared(before: Mapping[str, int], after: Mapping[str, int]) -> tuple[TableRows, ...]:
    return tuple(TableRows(t, before.get(t), after.get(t)) for t in sorted({*before, *after}))
