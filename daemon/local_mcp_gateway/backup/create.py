"""Back up a database that may be in use, and list the backup only once it is whole on the disk.

online backup API → temporary file → fsync, read back (quick_check and SHA-256 in parallel) → rename →
fsync of the folder → manifest, the same way. Until the last rename nothing is listed.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING

from local_mcp_gateway.backup import paths
from local_mcp_gateway.backup.atomic_write import (
    copy_bytes,
    make_folder,
    named_failures,
    remove,
    temporary_file,
)
from local_mcp_gateway.backup.disk_space import require_room
from local_mcp_gateway.backup.manifest import Backup, publish
from local_mcp_gateway.backup.verify import checked_hash
from local_mcp_gateway.database.connections import open_checked, open_reader, uri
from local_mcp_gateway.database.run import UNWATCHED, Run
from local_mcp_gateway.errors import BackupDamaged, BackupFailed
from local_mcp_gateway.formats import iso

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


STEP_BYTES = 32 << 20
"""Copied between two checks of the deadline, the stop event and the progress bar."""


def create_backup(
    database: Path,
    *,
    folder: Path | None = None,
    before: str | None,
    fingerprint: str,
    applied: Sequence[str],
    program_version: str,
    deadline_s: float | None = None,
    run: Run = UNWATCHED,
) -> Backup:
    """Back the database up and return the backup, durable and listed.

    Opens its own connections, so the caller may hold BEGIN IMMEDIATE on another; without that,
    writers of a WAL database go on beside it. The progress of `backup` is in bytes, about every 32 MiB,
    while it is written (the first half) and while it is read back. Raises NoRoom, BackupFailed,
    BackupDamaged, DiskProblem, DatabaseBusy or Interrupted; then nothing is listed and the temporary
    file is gone.
    """
    database = database.resolve()
    folder = paths.backup_folder(database, folder)
    require_room(database, folder, rehearsed=False)
    with named_failures("write a backup into", folder):
        make_folder(folder)
        moment = paths.next_moment(database, folder, datetime.now(UTC))
        path = folder / f"{paths.backup_name(database, moment, before)}.db"
        if path.exists():
            raise BackupFailed(f"The backup {path} exists already.", hint="Run it again.")
        temporary = paths.temporary(path)
        with temporary_file(temporary) as descriptor:
            copy_online(database, temporary, deadline_s=deadline_s, run=_half(run, 0))
            sha256 = _read_back(database, temporary, descriptor, _half(run, 1))
            backup = Backup(
                path=path,
                name=path.stem,
                bytes=temporary.stat().st_size,
                sha256=sha256,
                created_at=iso(moment),
                before=before,
                fingerprint=fingerprint,
                applied=tuple(applied),
                program_version=program_version,
                verified=True,
                database=str(database),
            )
            publish(backup, temporary)
    return backup


def copy_online(
    database: Path, target: Path, *, deadline_s: float | None = None, run: Run = UNWATCHED
) -> None:
    """Copy one snapshot of every page into the target, which the caller flushes and checks if need be.

    The source is held in one read transaction for all steps: without it a step ends its own, and a
    writer between two steps makes SQLite start again from the first page (2,543 times, once).
    """
    until = None if deadline_s is None else monotonic() + deadline_s
    page_size = 0

    def between_steps(_status: int, remaining: int, total: int) -> None:
        run.checkpoint("while the backup was written")
        if until is not None and monotonic() > until:
            raise BackupFailed(
                f"The backup of {database} did not finish in {deadline_s:g} s.",
                hint="Close other programs that use the database, then start again.",
            )
        run.progress("backup", (total - remaining) * page_size, total * page_size)

    with closing(_open_source(database)) as source, closing(_open_target(target)) as copy:
        source.execute("BEGIN")
        source.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
        page_size = int(source.execute("PRAGMA page_size").fetchone()[0])
        source.backup(
            copy, pages=max(STEP_BYTES // page_size, 1), progress=between_steps, sleep=0.05
        )


def _half(run: Run, half: int) -> Run:
    """Return a run that reports its progress as the first (0) or the second (1) half of this one's."""

    def progress(phase: str, done: int, total: int) -> None:
        run.progress(phase, (half * total + done) // 2, total)

    return replace(run, progress=progress)


def _read_back(database: Path, temporary: Path, descriptor: int, run: Run) -> str:
    try:
        return checked_hash(temporary, "quick_check", flush=descriptor, run=run)
    except BackupDamaged as error:
        raise BackupFailed(
            f"The backup of {database} is not sound: {error.message}",
            hint="`db check` tells whether the database itself is damaged; if it is not, the disk is.",
            unsound=True,
        ) from error


def _open_source(database: Path) -> sqlite3.Connection:
    """Open the live database for reading, so that closing it cleans up the WAL as usual.

    A connection opened `mode=ro` would leave `-wal` and `-shm` behind when it is the only one.
    """
    with suppress(sqlite3.OperationalError):  # the file or folder may be read-only
        if database.exists():
            return open_checked(f"{uri(database)}?mode=rw")
    return open_reader(database)


def _open_target(target: Path) -> sqlite3.Connection:
    """Open the temporary file without journal and without syncs: it is private until it is renamed."""
    connection = sqlite3.connect(target, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=OFF")
    connection.execute("PRAGMA synchronous=OFF")
    return connection


@contextmanager
def scratch_copy(backup: Backup) -> Iterator[Path]:
    """Yield a private copy of the backup in the same folder; remove it when the block ends.

    A backup has no writer, so the file system's own copy is safe, and shares blocks if it can. Nothing
    is flushed. The next start's cleanup removes a copy that a crash left.
    """
    path = paths.temporary(backup.path.with_name(f"{backup.name}-rehearsal-{os.getpid()}.db"))
    with named_failures("write a copy for the rehearsal to", path):
        copied = temporary_file(path)
        descriptor = copied.__enter__()
    try:
        with named_failures("write a copy for the rehearsal to", path):
            copy_bytes(backup.path, descriptor)
        yield path
    finally:
        copied.__exit__(None, None, None)
        with suppress(OSError):
            remove(path)
