"""Verify a database file that has no writer: SHA-256 and SQLite's integrity check in parallel.

Both release the GIL, so the hash runs in a second thread while SQLite reads. The file is opened
`immutable`: no locks, no WAL or journal beside it, nothing written. So it must have no writer, which
holds for a backup once it is written.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Literal

from local_mcp_gateway.backup.atomic_write import named_failures
from local_mcp_gateway.database.connections import open_immutable
from local_mcp_gateway.database.integrity import findings
from local_mcp_gateway.database.run import UNWATCHED, Run
from local_mcp_gateway.errors import BackupDamaged, BackupFailed, DiskProblem, Interrupted
from local_mcp_gateway.regular_file import open_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from local_mcp_gateway.backup.manifest import Backup

HASH_CHUNK_BYTES = 1 << 20
TOLD_BYTES = 32 << 20
"""Hashed between two progress reports."""
OPCODES_BETWEEN_LOOKS = 100_000
"""SQLite opcodes between two checks of the stop event: about every 10 ms."""


def verify_backup(backup: Backup, *, run: Run = UNWATCHED) -> None:
    """Check a backup in full: size, SHA-256 and `integrity_check`; raises BackupDamaged.

    Reads only. Needs no lock: a listed backup is never written again.
    """
    with named_failures("read the backup", backup.path):
        size = backup.path.stat().st_size
        if size != backup.bytes:
            raise BackupDamaged(
                f"The backup {backup.name} has {size} bytes instead of {backup.bytes}: it was cut "
                "off or replaced."
            )
        sha256 = checked_hash(backup.path, "integrity_check", run=run)
    if sha256 != backup.sha256:
        raise BackupDamaged(
            f"The backup {backup.name} was changed after it was made (SHA-256 differs)."
        )


def newest_good(backups: Iterable[Backup], *, run: Run = UNWATCHED) -> Backup | None:
    """Return the first of the backups (newest first, as listed) that verifies in full."""
    for backup in backups:
        with suppress(BackupDamaged, BackupFailed, DiskProblem):
            verify_backup(backup, run=run)
            return backup
    return None


def checked_hash(
    path: Path,
    check: Literal["quick_check", "integrity_check"],
    *,
    flush: int | None = None,
    run: Run = UNWATCHED,
) -> str:
    """Return the SHA-256 of a database file that passes the check; raises BackupDamaged.

    `flush` is a descriptor of the file, which is flushed to the disk in parallel and durable on return.
    The progress of `backup`, in bytes, is reported from the hash's thread.
    """
    jobs = [_Job(lambda: file_hash(path, run=run))]
    if flush is not None:
        jobs.append(_Job(lambda: os.fsync(flush)))
    try:
        problem = first_problem(path, check, run=run)
    finally:
        for job in jobs:
            job.join()
    results = [job.outcome() for job in jobs]
    if problem is not None:
        raise BackupDamaged(f"The file {path} does not pass SQLite's {check}: {problem}.")
    return str(results[0])


class _Job(threading.Thread):
    """One function in a thread of its own, started at once."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._result: object = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Run in the new thread."""
        try:
            self._result = self._work()
        except BaseException as error:  # noqa: BLE001  raised again by outcome(), in the caller's thread
            self._error = error

    def outcome(self) -> object:
        """Return the result, or raise the error, once the thread has ended."""
        self.join()
        if self._error is not None:
            raise self._error
        return self._result


def file_hash(
    path: Path,
    *,
    run: Run = UNWATCHED,
) -> str:
    """Return the SHA-256 of a file in hex; raises Interrupted when asked to stop."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(HASH_CHUNK_BYTES))
    with os.fdopen(open_file(path), "rb", buffering=0) as file:
        total = os.fstat(file.fileno()).st_size
        done = 0
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            done += count
            if done % TOLD_BYTES < HASH_CHUNK_BYTES:
                run.progress("backup", done, total)
            run.checkpoint("while a backup was read")
    return digest.hexdigest()


def first_problem(
    path: Path,
    check: Literal["quick_check", "integrity_check"],
    *,
    run: Run = UNWATCHED,
) -> str | None:
    """Return the first problem that SQLite finds in a file without a writer; None if there is none."""
    with closing(open_immutable(path)) as connection:
        if run.stop is not None:
            connection.set_progress_handler(lambda: int(run.stopped), OPCODES_BETWEEN_LOOKS)
        try:
            found = findings(connection, check)
        except sqlite3.OperationalError as error:
            if run.stopped:
                raise Interrupted("Stopped by a signal while a backup was checked.") from error
            return str(error)
        except sqlite3.DatabaseError as error:
            return str(error)
    return found[0] if found else None
