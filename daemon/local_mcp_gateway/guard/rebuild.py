"""The database that a rewind puts in the old one's place, built and finished beside it.

beginning → the folder, as a start applies it → what was written since, carried over → checked, flushed.
It is its own rehearsal: nothing of the live file is touched until the one rename.
"""

from __future__ import annotations

import os
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from local_mcp_gateway.backup import names
from local_mcp_gateway.backup.carry import carry_over
from local_mcp_gateway.backup.durable import flush, make_folder, named_failures, temporary_file
from local_mcp_gateway.backup.losses import losses
from local_mcp_gateway.backup.verify import open_immutable
from local_mcp_gateway.database.connect import (
    begin_immediate,
    open_migration,
    open_scratch,
    reading,
    uri,
)
from local_mcp_gateway.database.integrity import full_check, quick_check
from local_mcp_gateway.database.pages import COMPARED_BYTES, pages
from local_mcp_gateway.errors import DiskProblem, GatewayError
from local_mcp_gateway.guard.hazards import face_hazards
from local_mcp_gateway.guard.hold import THOROUGH_BYTES
from local_mcp_gateway.guard.pending import apply_pending
from local_mcp_gateway.guard.read import check, read
from local_mcp_gateway.guard.rehearse import rehearse_on
from local_mcp_gateway.guard.report import Phases
from local_mcp_gateway.log import ignore
from local_mcp_gateway.migrate.history import continue_history, last_row
from local_mcp_gateway.migrate.journal import Entry, write_journal
from local_mcp_gateway.migrate.ledger import GUARD_TABLES, ensure_ledger
from local_mcp_gateway.migrate.replay import replay_on
from local_mcp_gateway.migrate.seals import seal, sealed_fingerprint, text_fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from local_mcp_gateway.backup.losses import Loss
    from local_mcp_gateway.guard.attempt import Attempt
    from local_mcp_gateway.guard.beginnings import Beginning
    from local_mcp_gateway.log import Emit
    from local_mcp_gateway.migrate.apply import Step


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A finished database that nobody uses yet."""

    steps: tuple[Step, ...]
    lost: tuple[Loss, ...]


@dataclass(frozen=True, slots=True)
class _Applied:
    steps: tuple[Step, ...]
    journaled: tuple[Entry, ...]
    """What the journal does not know yet."""
    since: int
    """The last row of the history before these."""
    sealed: bool
    """The schema is what the migrations make."""


def rebuild(
    attempt: Attempt, beginning: Beginning, staged: Path, descriptor: int
) -> Rebuilt | None:
    """Build the new database in the empty file `staged`; None where the beginning cannot be had.

    The caller holds the lock, and SQLite's write lock. Raises what applying the folder raises. The
    journal is written last: new files are in it before the database takes its place.
    """
    if not beginning.make(staged, descriptor):
        return None
    done = _apply_folder(attempt, staged, fresh=beginning.fresh)
    lost = _lost(attempt, staged)
    if lost:
        with _as_it_came_to_be(attempt, beginning) as base:
            carry_over(
                attempt.database, base, staged, prepare=attempt.prepare, ignored=GUARD_TABLES
            )
        lost = _lost(attempt, staged)
    with named_failures("finish", staged):
        _finish(attempt, beginning, staged, done)
    attempt.checkpoint()
    if done.journaled:
        write_journal(attempt.migrations, done.journaled)
    return Rebuilt(done.steps, lost)


def _apply_folder(attempt: Attempt, staged: Path, *, fresh: bool) -> _Applied:
    on_staged = replace(attempt, database=staged, emit=ignore, phases=Phases())
    since = 0
    journaled: tuple[Entry, ...] = ()
    steps: tuple[Step, ...] = ()
    if fresh:
        # Told by nobody as yet: what a rehearsal refuses may stand on a new database.
        on_staged = replace(on_staged, emit=_only_hazards(attempt))
        fresh = check(on_staged)
        steps = apply_pending(on_staged, read(on_staged, fresh=fresh), fresh=fresh).applied
    else:
        with reading(staged, locked=True) as reader:
            since = last_row(reader)
        plan = read(on_staged, fresh=False)
        if plan.pending:
            rehearsal = rehearse_on(on_staged, staged, plan)
            face_hazards(attempt, plan, rehearsal, None)
            steps = rehearsal.steps
            new = [migration for migration in plan.pending if migration.tag in plan.new_files]
            journaled = tuple(Entry(n, m.tag, m.when) for n, m in enumerate(new, plan.next_idx))
    with reading(staged, locked=True) as reader:
        sealed = sealed_fingerprint(reader) is not None
    return _Applied(steps, journaled, since, sealed)


def _lost(attempt: Attempt, staged: Path) -> tuple[Loss, ...]:
    return losses(attempt.database, staged, ignored=GUARD_TABLES, locked=True)


@contextmanager
def _as_it_came_to_be(attempt: Attempt, beginning: Beginning) -> Iterator[Path]:
    """Yield the database as the old texts made it, without what anybody wrote: what to compare with."""
    folder = attempt.backup_folder
    stem = attempt.database.resolve().stem
    base = names.temporary(folder / f"{stem}-base-{os.getpid()}.db")
    with named_failures("write a copy for the comparison into", folder):
        make_folder(folder)
        with temporary_file(base) as descriptor:
            beginning.make(base, descriptor)
            with suppress(GatewayError), closing(open_scratch(base)) as scratch:
                attempt.prepare(scratch)
                replay_on(scratch, beginning.led_on, stop=attempt.stop, past=True)
            yield base


def _finish(attempt: Attempt, beginning: Beginning, staged: Path, done: _Applied) -> None:
    """Complete the history, and leave the file whole, flushed, and in the old one's journal mode."""
    with reading(attempt.database, locked=True) as reader:
        (mode,) = reader.execute("PRAGMA journal_mode").fetchone()
    with closing(open_migration(staged)) as fresh:
        fresh.execute("ATTACH ? AS live", (f"{uri(attempt.database)}?mode=ro",))
        begin_immediate(fresh, staged)
        ensure_ledger(fresh)
        if beginning.goes_back:
            continue_history(
                fresh,
                since=done.since,
                backup=beginning.backup,
                program_version=attempt.policy.program_version,
            )
        if done.sealed:
            seal(fresh, text_fingerprint(fresh))
        size = staged.stat().st_size
        written = pages(fresh) if size <= COMPARED_BYTES else None
        fresh.execute("COMMIT")
        fresh.execute("DETACH live")
        fresh.execute(f"PRAGMA journal_mode={mode}").fetchall()
    flush(staged)
    with closing(open_immutable(staged)) as reader:
        (full_check if size <= THOROUGH_BYTES else quick_check)(reader, staged)
        found = pages(reader) if written else None
        if written and found and not found.agree(written):
            raise DiskProblem(f"The new database {staged} does not read back as written.")


def _only_hazards(attempt: Attempt) -> Emit:
    def emit(event: str, /, **fields: object) -> None:
        if event == "guard.hazard_found":
            attempt.emit(event, **fields)

    return emit
