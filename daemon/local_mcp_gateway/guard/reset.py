"""Reset: a fresh database with every migration (and seed) takes the old one's place in one rename.

It is built beside the old one by the same guard, so a kill at any point leaves the old database or
the finished new one, and a migration that fails leaves the old one.
"""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from local_mcp_gateway.backup import names, sweep
from local_mcp_gateway.backup.durable import flush, named_failures, remove
from local_mcp_gateway.backup.swap import prune_asides, swap
from local_mcp_gateway.backup.verify import digest, open_immutable
from local_mcp_gateway.database.connect import (
    begin_immediate,
    open_migration,
    reading,
    set_foreign_keys,
)
from local_mcp_gateway.database.integrity import full_check, quick_check
from local_mcp_gateway.database.lock import DatabaseLock, lock_path
from local_mcp_gateway.errors import BackupFailed, Damaged, DiskProblem, NotADatabase
from local_mcp_gateway.guard.backup import back_up_now
from local_mcp_gateway.guard.guard import guarded
from local_mcp_gateway.guard.seed import plant
from local_mcp_gateway.log import ignore
from local_mcp_gateway.migrate.ledger import ensure_ledger, note_event
from local_mcp_gateway.migrate.seeds import named_deferred_keys, require_files

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence
    from pathlib import Path

    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.guard.policy import GuardPolicy
    from local_mcp_gateway.guard.report import GuardReport
    from local_mcp_gateway.log import Emit


@dataclass(frozen=True, slots=True)
class Reset:
    """A finished reset: where the old rows are."""

    report: GuardReport
    backup: Backup | None
    aside: Path | None
    """The old file, kept only where it was too damaged for a backup."""


def reset_guarded(
    database: Path,
    migrations: Path,
    *,
    policy: GuardPolicy,
    backup_folder: Path,
    keep_aside: int,
    seeds: Sequence[Path] = (),
    lock_timeout_s: float = 0.0,
    emit: Emit = ignore,
    stop: threading.Event | None = None,
) -> Reset:
    """Back the database up, build a fresh one beside it, and swap them; holds the database's lock."""
    require_files(seeds)
    real = database.resolve()
    with DatabaseLock(database, timeout_s=lock_timeout_s, stop=stop, replaces=True) as lock:
        sweep(database, backup_folder)
        backup, aside = _saved(real, backup_folder, policy, emit, stop)
        staged = names.staged(real)
        try:
            with named_failures("put a fresh database at", real):
                remove(staged)
                with guarded(staged, migrations, policy=policy, stop=stop) as report:
                    _finish(staged, backup, policy, seeds)
                flush(staged)
                swap(real, staged, aside=aside)
        finally:
            with suppress(OSError):  # the next start's sweep tries again
                remove(staged)
                lock_path(staged).unlink(missing_ok=True)
        prune_asides(real, max(keep_aside, 1))
        lock.record_clean_stop()
    emit("database.reset", database=str(database), backup=backup.name if backup else None)
    return Reset(report, backup, aside)


def _saved(
    real: Path,
    backup_folder: Path,
    policy: GuardPolicy,
    emit: Emit,
    stop: threading.Event | None,
) -> tuple[Backup | None, Path | None]:
    """Back the old database up; of one that is damaged return the name to keep its file under."""
    if not real.exists() or not real.stat().st_size:
        return None, None
    try:
        backup = back_up_now(
            real,
            backup_folder=backup_folder,
            program_version=policy.program_version,
            emit=emit,
            stop=stop,
        )
    except (Damaged, NotADatabase):
        return None, names.set_aside(real, datetime.now(UTC))
    except BackupFailed as error:
        if not (error.data.get("unsound") and _is_damaged(real)):
            raise
        return None, names.set_aside(real, datetime.now(UTC))
    return backup, None


def _is_damaged(real: Path) -> bool:
    """Tell whether it is the database that is not sound, and not only the backup that was made of it."""
    try:
        with reading(real) as reader:
            quick_check(reader, real)
    except (Damaged, NotADatabase):
        return True
    return False


def _finish(
    staged: Path, backup: Backup | None, policy: GuardPolicy, seeds: Sequence[Path]
) -> None:
    """Seed the fresh database, say in its history what it is, and leave it as one file."""
    with closing(open_migration(staged)) as fresh:
        set_foreign_keys(fresh, on=True)
        begin_immediate(fresh, staged)
        saved = backup.name if backup else None
        ensure_ledger(fresh)
        note_event(fresh, "reset", backup=saved, program_version=policy.program_version)
        if seeds:
            plant(fresh, seeds, program_version=policy.program_version, backup=saved)
        written = digest(fresh)
        with named_deferred_keys():
            fresh.execute("COMMIT")
        (busy, *_) = fresh.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy or any(side.exists() for side in names.side_files(staged)):
        raise DiskProblem(f"The fresh database {staged} could not be brought into one file.")
    with closing(open_immutable(staged)) as reader:
        full_check(reader, staged)
        if digest(reader) != written:
            raise DiskProblem(f"The fresh database {staged} does not read back as written.")
