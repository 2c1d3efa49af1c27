"""Back up a database that may be in use, and list the backup only once it is whole on the disk.

online backup API → temporary file → fsync, read back (quick_check and SHA-256 in parallel) → rename →
fsync of the folder → manifest, the same way. Until the last rename nothing is listed.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from local_mcp_gateway.backup.files import (
    backup_folder,
    backup_name,
    make_folder,
    named_failures,
    next_moment,
    raise_named,
    temporary_file,
    temporary_path,
    unsent_folder,
)
from local_mcp_gateway.backup.manifest import Backup, publish, record_attempt
from local_mcp_gateway.database import (
    ENGINE_ERRORS,
    UNWATCHED,
    Run,
    database_bytes,
    findings,
    open_checked,
    open_immutable,
    open_reader,
    uri,
)
from local_mcp_gateway.errors import BackupDamaged, BackupFailed, DiskProblem, Interrupted, NoRoom
from local_mcp_gateway.formats import iso, size
from local_mcp_gateway.regular_file import copy_bytes, open_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

STEP_BYTES = 32 << 20
"""Copied between two checks of the stop event and the progress bar."""


def create_backup(
    database: Path,
    *,
    folder: Path | None = None,
    before: str | None,
    fingerprint: str,
    applied: Sequence[str],
    program_version: str,
    full: bool = False,
    newest: Backup | None = None,
    run: Run = UNWATCHED,
) -> Backup:
    """Back the database up and return the backup, durable and listed.

    If `newest` has the same content, that is the backup: its manifest records this attempt.

    Opens its own connections, so the caller may hold BEGIN IMMEDIATE on another; without that,
    writers of a WAL database go on meanwhile. The progress is that of `backup`, in bytes, while it is
    written, then that of `checked_hash`. `full` checks its indexes too: one with a damaged index is marked
    as damaged, and is kept but never offered. Raises NoRoom, BackupFailed,
    BackupDamaged, DiskProblem, DatabaseBusy or Interrupted; then nothing is listed and the temporary
    file is gone.
    """
    database = database.resolve()
    folder = backup_folder(database, folder)
    try:
        make_folder(folder)
        moment = next_moment(database, folder, datetime.now(UTC))
        path = folder / f"{backup_name(database, moment, before)}.db"
        if path.exists():
            raise BackupFailed(f"The backup {path} exists already.", hint="Run it again.")
        temporary = temporary_path(path)
        with temporary_file(temporary) as descriptor:
            copy_online(database, temporary, run=run)
            sha256, damage = _read_back(database, temporary, descriptor, full=full, run=run)
            if newest is not None and _has_hash(newest, sha256, run):
                return record_attempt(newest, before)
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
                verified=damage is None,
                database=str(database),
                damage=damage,
            )
            publish(backup, temporary)
    except ENGINE_ERRORS as error:
        raise_named(error, folder, doing="write a backup into")
    return backup


def copy_online(database: Path, target: Path, *, run: Run = UNWATCHED) -> None:
    """Copy one snapshot of every page into the target, which the caller flushes and checks if need be.

    The source is held in one read transaction for all steps: without it a step ends its own, and a
    writer between two steps makes SQLite start again from the first page (2,543 times, once).
    """
    page_size = 0

    def between_steps(_status: int, remaining: int, total: int) -> None:
        run.checkpoint("while the backup was written")
        run.progress("backup", (total - remaining) * page_size, total * page_size)

    with closing(_open_source(database)) as source, closing(_open_target(target)) as copy:
        source.execute("BEGIN")
        source.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
        page_size = int(source.execute("PRAGMA page_size").fetchone()[0])
        source.backup(
            copy, pages=max(STEP_BYTES // page_size, 1), progress=between_steps, sleep=0.05
        )


def holds(backup: Backup, database: int, *, run: Run = UNWATCHED) -> bool:
    """Return whether a backup has the content of the database file with this descriptor.

    The file has no writer and no WAL with anything in it. All bytes are compared but the counters in
    the header, which SQLite's own copy rewrites.
    """
    if os.fstat(database).st_size != backup.bytes:
        return False
    try:
        copied = open_file(backup.path)
    except OSError:
        return False
    with os.fdopen(copied, "rb", buffering=0):
        for at in range(0, backup.bytes, HASH_CHUNK_BYTES):
            run.checkpoint("while the database was compared with its newest backup")
            run.progress("compare", at, backup.bytes)
            ours, theirs = (os.pread(file, HASH_CHUNK_BYTES, at) for file in (database, copied))
            if not at:
                ours, theirs = map(_without_counters, (ours, theirs))
            if ours != theirs:
                return False
    return True


def _without_counters(page: bytes) -> bytes:
    """Leave out the change counter, the schema cookie, and the version that wrote last (file format §1.3)."""
    return page[:24] + page[28:40] + page[44:92] + page[100:]


def _has_hash(backup: Backup, sha256: str, run: Run) -> bool:
    """Return whether the file of a backup still has this content."""
    if backup.sha256 != sha256:
        return False
    with suppress(OSError):
        return file_hash(backup.path, run=run) == sha256
    return False


def _read_back(
    database: Path, temporary: Path, descriptor: int, *, full: bool, run: Run
) -> tuple[str, str | None]:
    """Return the hash, and what is wrong with an index."""
    try:
        sha256 = checked_hash(temporary, "quick_check", flush=descriptor, run=run)
    except BackupDamaged as error:
        raise BackupFailed(
            f"The backup of {database} is not sound: {error.message}",
            hint="`db check` tells whether the database itself is damaged; if it is not, the disk is.",
            unsound=True,
        ) from error
    if not full:
        return sha256, None
    run.progress("verify", 0, 0)
    return sha256, first_problem(temporary, "integrity_check", run=run)


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
    path = temporary_path(backup.path.with_name(f"{backup.name}-rehearsal-{os.getpid()}.db"))
    with ExitStack() as held:
        try:
            descriptor = held.enter_context(temporary_file(path))
            copy_bytes(backup.path, descriptor)
        except OSError as error:
            raise_named(error, path, doing="write a copy for the rehearsal to")
        yield path


HASH_CHUNK_BYTES = 1 << 20
TOLD_BYTES = 32 << 20
"""Hashed between two progress reports."""
OPCODES_BETWEEN_LOOKS = 100_000
"""SQLite opcodes between two checks of the stop event: about every 10 ms."""


def verify_backup(backup: Backup, *, run: Run = UNWATCHED) -> None:
    """Check a backup in full: size, SHA-256 and `integrity_check`; raises BackupDamaged.

    Reads only. Needs no lock: a listed backup is never written again.
    """
    with named_failures(backup.path, doing="read the backup"):
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
    The progress is that of `read`, in bytes, from the hash's thread; then of `verify` and `flush`, of
    which SQLite and the kernel do not say how far they are.
    """
    hashing = Job(lambda: _hash_then_told(path, run))
    flushing = None if flush is None else Job(lambda: os.fsync(flush))
    try:
        problem = first_problem(path, check, run=run)
    finally:
        hashing.join()
        if flushing is not None:
            run.progress("flush", 0, 0)
            flushing.join()
    sha256 = hashing.outcome()
    if flushing is not None:
        flushing.outcome()
    if problem is not None:
        raise BackupDamaged(f"The file {path} does not pass SQLite's {check}: {problem}.")
    return str(sha256)


def _hash_then_told(path: Path, run: Run) -> str:
    sha256 = file_hash(path, run=run)
    run.progress("verify", 0, 0)  # SQLite's check, beside the hash, takes longer
    return sha256


class Job(threading.Thread):
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


def file_hash(path: Path, *, run: Run = UNWATCHED) -> str:
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
                run.progress("read", done, total)
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


MARGIN_BYTES = 256 << 10
"""For manifests, the ledger, SQLite's own files and the file system."""


def room_needed(database: Path, *, rehearsed: bool = True) -> int:
    """Return the bytes that a backup, and a rehearsal on a copy of it, take in the backup folder.

    The copy is counted in full, though a file system with reflinks needs nothing for it. A replicated
    database may be written once more, into the files that Litestream has yet to send.
    """
    size = database_bytes(database)
    copies = (2 if rehearsed else 1) + unsent_folder(database).exists()
    return size * copies + MARGIN_BYTES


def require_room(database: Path, folder: Path, *, rehearsed: bool = True) -> None:
    """Raise NoRoom, with the missing amount, unless the backup folder's disk has enough space."""
    require_free(folder, room_needed(database, rehearsed=rehearsed), what="the backup")


def require_free(folder: Path, needed: int, *, what: str) -> None:
    """Raise NoRoom unless that many bytes are free where the folder is, or will be created."""
    try:
        free = free_bytes(folder)
    except OSError as error:
        raise_named(error, folder, doing="look at the free room of")
    if free < needed:
        raise NoRoom(
            f"Not enough room in {folder} for {what}: {size(needed)} are needed, {size(free)} are "
            f"free, {size(needed - free)} are missing.",
            needed_bytes=needed,
            free_bytes=free,
            missing_bytes=needed - free,
            path=str(folder),
        )


def free_bytes(folder: Path) -> int:
    """Return the bytes that this user may still write where the folder is, or will be created."""
    found = os.statvfs(existing_folder(folder))
    return found.f_bavail * found.f_frsize


def existing_folder(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())
