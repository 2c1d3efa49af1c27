"""Reset and seed: a fresh database in the old one's place, and data for development in either.

The fresh one is built beside the old one by the same guard, with every migration (and seed), and takes its
place in one rename: a kill at any point leaves the old database or the finished new one, and a migration
that fails leaves the old one. Seeds are `.sql` or `.py` files, all of them applied or none.
"""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from local_mcp_gateway.backup import clean_up, paths
from local_mcp_gateway.backup.atomic_write import flush, named_failures, remove
from local_mcp_gateway.backup.restore import prune_asides, swap
from local_mcp_gateway.backup.verify import digest, open_immutable
from local_mcp_gateway.database.connections import (
    begin_immediate,
    has_content,
    open_migration,
    reading,
    set_foreign_keys,
)
from local_mcp_gateway.database.errors import translated_errors
from local_mcp_gateway.database.integrity import full_check, probe, quick_check
from local_mcp_gateway.database.lock import DatabaseLock, lock_path
from local_mcp_gateway.errors import (
    BackupFailed,
    Damaged,
    DatabasePathProblem,
    DiskProblem,
    NotADatabase,
)
from local_mcp_gateway.guard.context import BatchResult
from local_mcp_gateway.guard.guard import guarded
from local_mcp_gateway.guard.restore import back_up_now
from local_mcp_gateway.guard.transaction import commit, fsync_and_verify
from local_mcp_gateway.log import ignore
from local_mcp_gateway.migrate.ledger import ensure_ledger, note_event, text_fingerprint
from local_mcp_gateway.migrate.seeds import named_deferred_keys, require_files, roll_back, run_seeds

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence
    from pathlib import Path

    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.database.connections import Connection
    from local_mcp_gateway.guard.context import GuardContext, GuardPolicy, GuardReport
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
        clean_up(database, backup_folder)
        backup, aside = _saved(real, backup_folder, policy, emit, stop)
        staged = paths.staged(real)
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
    if not has_content(real):
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
        return None, paths.set_aside(real, datetime.now(UTC))
    except BackupFailed as error:
        if not (error.data.get("unsound") and _is_damaged(real)):
            raise
        return None, paths.set_aside(real, datetime.now(UTC))
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
            apply_seeds(fresh, seeds, program_version=policy.program_version, backup=saved)
        written = digest(fresh)
        with named_deferred_keys():
            fresh.execute("COMMIT")
        (busy, *_) = fresh.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy or any(side.exists() for side in paths.side_files(staged)):
        raise DiskProblem(f"The fresh database {staged} could not be brought into one file.")
    with closing(open_immutable(staged)) as reader:
        full_check(reader, staged)
        if digest(reader) != written:
            raise DiskProblem(f"The fresh database {staged} does not read back as written.")


def seed_guarded(
    context: GuardContext, files: Sequence[Path], *, lock_timeout_s: float = 0.0
) -> Backup:
    """Back the database up, then run every seed in one transaction; return the backup.

    Holds the database's lock, and SQLite's from before the backup through COMMIT. A seed that fails
    leaves the database as it was.
    """
    require_files(files)
    database = context.database
    if not database.exists():
        raise DatabasePathProblem(
            f"There is no database at {database}.", hint="Create it with `db migrate` first."
        )
    with (
        DatabaseLock(database, timeout_s=lock_timeout_s, stop=context.stop) as lock,
        translated_errors(database),
    ):
        clean_up(database, context.backup_folder)
        probe(database, quick_check_limit_s=context.policy.quick_check_limit_s, stop=context.stop)
        with closing(open_migration(database)) as live:
            context.prepare(live)
            set_foreign_keys(live, on=True)
            begin_immediate(live, database)
            try:
                backup = back_up_now(
                    database,
                    backup_folder=context.backup_folder,
                    program_version=context.policy.program_version,
                    emit=context.emit,
                    progress=lambda done, total: context.progress("backup", done, total),
                    stop=context.stop,
                )
                now = apply_seeds(
                    live,
                    files,
                    program_version=context.policy.program_version,
                    backup=backup.name,
                )
                context.checkpoint()
                with named_deferred_keys():
                    commit(context, live)
            finally:
                roll_back(live)
        fsync_and_verify(context, BatchResult((), now, ()), backup)
        lock.record_clean_stop()
    context.emit("database.seeded", database=str(database), files=[str(file) for file in files])
    return backup


def apply_seeds(
    connection: Connection,
    files: Sequence[Path],
    *,
    program_version: str,
    backup: str | None,
) -> str:
    """Run the seeds inside the caller's transaction, record them, and return the schema's fingerprint."""
    run_seeds(connection, files)
    ensure_ledger(connection)
    note_event(connection, "seeded", backup=backup, program_version=program_version)
    return text_fingerprint(connection)
