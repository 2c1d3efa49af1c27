"""Restore a backup: stage a checked copy and swap it for the database in one rename."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import quote

from local_mcp_gateway.backup.create import MARGIN_BYTES, file_hash, require_free
from local_mcp_gateway.backup.files import (
    DEFAULT_KEEP_ASIDE,
    FETCHED,
    PRIVATE_FILE,
    aside_path,
    held,
    is_same_file,
    list_asides,
    named_failures,
    remove,
    remove_fetched,
    side_files,
    staged_path,
    temporary_file,
)
from local_mcp_gateway.database import (
    UNWATCHED,
    Run,
    begin,
    flush,
    hold_new_file,
    require_own_logs,
    staged_transaction,
    translated_errors,
)
from local_mcp_gateway.errors import (
    BackupDamaged,
    BackupForeign,
    Damaged,
    DatabaseBusy,
    DiskProblem,
    ForeignLog,
    NotADatabase,
)
from local_mcp_gateway.regular_file import copy_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from local_mcp_gateway.backup.manifest import Backup


BUSY_TIMEOUT_S = 5.0


def hold_still(live: sqlite3.Connection, real: Path) -> os.stat_result:
    """Take SQLite's write lock and checkpoint the WAL; return the file's state with nobody writing.

    For `swap`, which locks everybody out and so has to release this lock first: a waiting writer may be
    quicker. Raises DatabaseBusy.
    """
    live.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    begin(live)
    with suppress(FileNotFoundError):
        if real.with_name(f"{real.name}-wal").stat().st_size:
            raise DatabaseBusy(f"Another program is reading or writing {real}.")
    return real.stat()


def swap(
    database: Path,
    new: Path,
    *,
    aside: Path | None,
    seen: os.stat_result | None = None,
    keeps_mode: bool = True,
) -> None:
    """Put `new` (flushed, closed, same folder) at the database's path; durable on return.

    The caller holds the database's lock. The old file is kept as `aside`, or removed if that is None.
    `seen` is what `hold_still` returned: anything written since is not in `new`, and raises
    DatabaseBusy. Without `keeps_mode` the file stays private, whatever the old one was. Killed at any point the path holds the old database or the new one; `clean_up` removes
    a second name that the old one has by then. Raises DatabaseBusy while another program has the
    database open, before anything is changed.
    """
    real = database.resolve()
    with named_failures(real, doing="replace"), _at_rest(real) as sound:
        if seen is not None and not _is_as_seen(real, seen):
            raise DatabaseBusy(f"Another program has written to {real} meanwhile.")
        if aside is not None and real.exists():
            _keep(real, aside)
            if not sound:
                _keep_side_files(real, aside)
        for side in side_files(real):
            side.unlink(missing_ok=True)
        flush(real.parent)
        _inherit(real, new, mode=keeps_mode)
        new.rename(real)
        flush(real.parent)
    hold_new_file(real)


def _is_as_seen(real: Path, seen: os.stat_result) -> bool:
    """Return whether nothing has been committed since; the WAL is checkpointed by now."""
    now = real.stat()
    return (now.st_ino, now.st_size, now.st_mtime_ns) == (
        seen.st_ino,
        seen.st_size,
        seen.st_mtime_ns,
    )


def _inherit(real: Path, new: Path, *, mode: bool) -> None:
    """Give the new file the owner and the mode of the old one: root may restore for another user.

    A group that the user may not set stays that of any new file of theirs.
    """
    with suppress(FileNotFoundError, PermissionError):
        old = real.stat()
        if mode:
            new.chmod(stat.S_IMODE(old.st_mode))
        os.chown(new, old.st_uid, old.st_gid)


@contextmanager
def _at_rest(real: Path) -> Iterator[bool]:
    """Lock the old database exclusively; yield whether it is one sound file now, or damaged as it was."""
    if not real.exists():
        yield True
        return
    connection = sqlite3.connect(
        f"file:{quote(os.fsencode(real))}?mode=rw",
        uri=True,
        isolation_level=None,
        timeout=BUSY_TIMEOUT_S,
    )
    try:
        try:
            require_own_logs(real)
            with named_failures(real, doing="take over"):
                _make_one_file(connection, real)
            sound = True
        except (Damaged, NotADatabase, ForeignLog):
            sound = False
        yield sound
    finally:
        with suppress(sqlite3.Error):
            connection.close()


def _make_one_file(connection: sqlite3.Connection, real: Path) -> None:
    """Lock every other program out until the connection is closed, and empty the WAL."""
    try:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("ROLLBACK")
        busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise DatabaseBusy(f"Another program has {real} open.") from error
        raise
    if busy:
        raise DatabaseBusy(f"Another program has {real} open.")


def _keep(real: Path, aside: Path) -> None:
    """Give the old database a second name."""
    try:
        os.link(real, aside)
    except OSError:  # a file system without hard links: copy it
        descriptor = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            copy_bytes(real, descriptor)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _keep_side_files(real: Path, aside: Path) -> None:
    """Keep the WAL and journal of a damaged database with it: they may hold what it does not.

    Those of a sound one hold nothing any more, even where SQLite could not remove them.
    """
    for side, kept in zip(side_files(real), side_files(aside), strict=True):
        if not side.name.endswith("-shm") and side.exists():
            side.rename(kept)


def prune_asides(database: Path, keep: int) -> tuple[Path, ...]:
    """Remove all but the newest replaced databases; return those removed.

    Runs after a successful swap; what cannot be removed now is tried again after the next one.
    """
    removed = []
    with suppress(OSError):
        for path in list_asides(database)[max(keep, 0) :]:
            remove(path)
            removed.append(path)
    return tuple(removed)


@dataclass(frozen=True, slots=True)
class Restored:
    """A finished restore."""

    backup: Backup
    aside: Path | None
    """Where the replaced file is; None if there was none."""


def restore_backup(
    database: Path,
    backup: Backup,
    *,
    annotate: Callable[[sqlite3.Connection], None] = lambda _: None,
    keep_aside: int = DEFAULT_KEEP_ASIDE,
    moved: bool = False,
    run: Run = UNWATCHED,
) -> Restored:
    """Replace the database by the backup, durably; the caller holds the database's lock.

    `annotate` is called inside a transaction on the staged copy, to record the restore in its
    history before it becomes the database. The replaced file is kept under a dated name. `moved`: the
    backup is a file of this command, on the same file system, that need not stay: it is not copied. Raises
    before anything is changed: BackupDamaged, NoRoom, DatabaseBusy, DiskProblem, Interrupted. Killed
    at any point: the old database or the restored one.
    """
    real = database.resolve()
    needed = MARGIN_BYTES if moved else backup.bytes + MARGIN_BYTES
    require_free(real.parent, needed, what="the restored database")
    staged = staged_path(real)
    source = backup.path if moved else None
    with (
        named_failures(staged, doing="stage the backup as"),
        temporary_file(staged, moved=source) as descriptor,
    ):
        if not moved:
            _copy(backup, staged, descriptor, run)
        _annotate(backup, staged, annotate, run)
        aside = aside_path(real, datetime.now(UTC)) if real.exists() else None
        swap(real, staged, aside=aside)
    prune_asides(real, max(keep_aside, 1))
    return Restored(backup, aside)


def _copy(backup: Backup, staged: Path, descriptor: int, run: Run) -> None:
    """Write what the backup's manifest says; raises BackupDamaged if it is something else by now."""
    size = backup.path.stat().st_size
    if size != backup.bytes:
        raise BackupDamaged(
            f"The backup {backup.name} has {size} bytes instead of {backup.bytes}: it was cut off "
            "or replaced."
        )
    copy_bytes(backup.path, descriptor, run.progress)
    if file_hash(staged, run=run) != backup.sha256:
        raise BackupDamaged(
            f"The backup {backup.name} was changed after it was made (SHA-256 differs)."
        )


def _annotate(
    backup: Backup, staged: Path, annotate: Callable[[sqlite3.Connection], None], run: Run
) -> None:
    """Make the staged file what the database will be: annotated, flushed, and checked in full."""
    try:
        with (
            translated_errors(staged),
            staged_transaction(staged, full=True, run=run) as connection,
        ):
            annotate(connection)
    except (Damaged, NotADatabase, DiskProblem) as error:
        if backup.verified:  # its bytes passed the check before
            raise
        raise BackupDamaged(f"The backup {backup.name} is damaged: {error.message}") from error


def require_known(backup: Backup, known_tags: Collection[str]) -> None:
    """Raise BackupForeign for a backup with migrations that the folder does not have.

    The next start would refuse the restored database as newer than the program.
    """
    unknown = [tag for tag in backup.applied if tag not in known_tags]
    if unknown:
        raise BackupForeign(
            f"The backup {backup.name} holds the migration {unknown[0]}, which the migrations "
            "folder does not: it was made by a newer version or for another folder.",
            hint=f"Install version {backup.program_version} (or newer), or give its --migrations.",
        )


@contextmanager
def fetched_folder(database: Path) -> Iterator[Path]:
    """Yield a private folder beside the database, for a file that may become it; removed at the end.

    Those of killed commands are removed first: their flocks are free.
    """
    real = database.resolve()
    remove_fetched(real)
    with ExitStack() as until:
        folder = None
        while folder is None:
            folder = _new_folder(real, until)
        yield folder


def _new_folder(database: Path, until: ExitStack) -> Path | None:
    """Make and hold a folder until that ends; None if a command took it for a killed one's before that."""
    prefix = f".{database.name}{FETCHED}"
    with ExitStack() as removed:
        made = TemporaryDirectory(dir=database.parent, prefix=prefix)
        folder = Path(removed.enter_context(made))
        try:
            descriptor = removed.enter_context(held(folder))
        except (FileNotFoundError, BlockingIOError):
            return None
        if not is_same_file(descriptor, folder):
            return None
        until.enter_context(removed.pop_all())
        return folder
