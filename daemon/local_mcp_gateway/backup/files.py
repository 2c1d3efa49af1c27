"""The files around a database: their names, how they are written, and what a crash leaves of them.

Finished files (backups, manifests, replaced databases) have plain names. Everything that a crash may
leave behind begins with a dot and the database's name and ends with one of three suffixes, so `clean_up`
can distinguish it from a user's file.

Each is written so that a power cut leaves the old content or the new: temp (0600, O_EXCL, flock) → write
→ fsync → rename → fsync of the folder. In tests a file that was renamed without the first fsync was 0
bytes after a power cut; a rename without the second was undone.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import sqlite3
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from local_mcp_gateway.database import (
    ENGINE_ERRORS,
    SIDE_FILES,
    commit,
    flush,
    raise_translated,
    require_own_logs,
    translated_errors,
    write_lock,
)
from local_mcp_gateway.errors import BackupFailed, DatabaseBusy, GatewayError
from local_mcp_gateway.regular_file import NotAFile, open_file

if TYPE_CHECKING:
    from collections.abc import Iterator


TEMPORARY = ".tmp"
"""Being written (backup, manifest, staged database, scratch copy); its writer holds a flock on it."""
FETCHED = ".fetched-"
"""Part of the name of a folder for what is fetched to become the database; its command holds a flock on it."""
DELISTED = ".pruned"
"""A delisted manifest, whose backup is about to be removed."""
LONGEST_TAG_BYTES = 100
"""How many bytes of a migration's tag the name of a backup holds."""
DEFAULT_KEEP_ASIDE = 3
"""How many replaced databases stay next to the one in use."""


def backup_folder(database: Path, folder: Path | None = None) -> Path:
    """Return where the backups of a database are: the given folder, or `backups` next to its real path."""
    return folder if folder is not None else database.resolve().parent / "backups"


def stamp(moment: datetime) -> str:
    """Return a UTC timestamp for file names, in milliseconds, that sorts by time."""
    moment = moment.astimezone(UTC)
    return f"{moment:%Y%m%dT%H%M%S}.{moment.microsecond // 1000:03d}Z"


def backup_name(database: Path, moment: datetime, before: str | None) -> str:
    """Return the name (no suffix) of a backup: `<database>-<stamp>[-before-<tag>]`.

    A tag may be longer than a file name, which holds 255 bytes with what comes before and after.
    """
    if before is None:
        return f"{database.resolve().stem}-{stamp(moment)}"
    tag = re.sub(r"[^\w.-]", "_", before).encode()[:LONGEST_TAG_BYTES].decode(errors="ignore")
    return f"{database.resolve().stem}-{stamp(moment)}-before-{tag}"


def backup_pattern(database: Path) -> re.Pattern[str]:
    """Return the pattern of this database's backup names; `app-two` does not match for `app`."""
    return re.compile(
        re.escape(database.resolve().stem) + r"-(?P<stamp>\d{8}T\d{6}(\.\d+)?Z)(-.*)?"
    )


def next_moment(database: Path, folder: Path, now: datetime) -> datetime:
    """Return the time for the next backup's name: now, or just after the newest if that is later.

    So a clock that was set back does not make the newest backup look like the oldest.
    """
    ours = backup_pattern(database)
    names = (ours.fullmatch(path.stem) for path in folder.iterdir())
    stamps = [found["stamp"] for found in names if found]
    newest = max(map(_moment, stamps), default=None)
    return now if newest is None else max(now, newest + timedelta(milliseconds=1))


def is_moment(text: str) -> bool:
    """Return whether a text is an ISO 8601 time with its offset from UTC."""
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _moment(stamp: str) -> datetime:
    # A name that the user chose may look like a timestamp.
    return datetime.fromisoformat(stamp) if is_moment(stamp) else datetime.min.replace(tzinfo=UTC)


def temporary_path(target: Path) -> Path:
    """Return the name under which the target is written before it is renamed."""
    return target.with_name(f".{target.name}{TEMPORARY}")


def staged_path(database: Path) -> Path:
    """Return the name of the file that is about to replace the database."""
    return temporary_path(database.resolve())


def aside_path(database: Path, moment: datetime) -> Path:
    """Return the dated name under which a replaced database is kept, next to the new one."""
    real = database.resolve()
    return real.with_name(f"{real.stem}.replaced-{stamp(moment)}{real.suffix}")


def unsent_folder(database: Path) -> Path:
    """Return where Litestream keeps what it has not sent yet, and at first a whole copy."""
    real = database.resolve()
    return real.with_name(f".{real.name}-litestream")


def list_asides(database: Path) -> tuple[Path, ...]:
    """Return the replaced databases that are kept next to this one, newest first.

    Empty if the folder does not exist or cannot be listed: a command that needs one reports it by name.
    """
    real = database.resolve()
    pattern = re.compile(
        re.escape(real.stem) + r"\.replaced-\d{8}T\d{6}\.\d{3}Z" + re.escape(real.suffix)
    )
    try:
        found = [path for path in real.parent.iterdir() if pattern.fullmatch(path.name)]
    except OSError:
        return ()
    return tuple(sorted(found, reverse=True))


def side_files(database: Path) -> tuple[Path, ...]:
    """Return where SQLite's own files of a database are, whether they exist or not."""
    return tuple(database.with_name(database.name + suffix) for suffix in SIDE_FILES)


PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700


def make_folder(folder: Path) -> None:
    """Create the backup folder (0700) if it is missing, durably; an existing one is left as it is."""
    if folder.is_dir():
        return
    if folder.exists():
        raise BackupFailed(
            f"{folder} is not a folder, so no backup can be written into it.",
            hint="Move it away, or give another with `[backup] folder`.",
        )
    folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    flush(folder.parent)


@contextmanager
def temporary_file(path: Path, *, moved: Path | None = None) -> Iterator[int]:
    """Create an empty private file and yield its descriptor; remove it unless it was renamed.

    `moved`: a file of the same file system that is renamed to this path instead, for good.

    The flock tells `clean_up` that its writer lives; SIGKILL frees it. SQLite's own locks on the same
    file are of another kind and do not conflict.
    """
    descriptor = _create(path) if moved is None else _move(moved, path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        still_there = is_same_file(descriptor, path)
        os.close(descriptor)
        if still_there:
            with suppress(OSError):  # the next start's cleanup tries again
                remove(path)


def _create(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, PRIVATE_FILE)
    except FileExistsError:
        clear(path)
        return os.open(path, flags, PRIVATE_FILE)


def _move(source: Path, path: Path) -> int:
    clear(path)
    source.rename(path)
    return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)


def remove_fetched(database: Path) -> list[Path]:
    """Remove the folders of killed commands; return them."""
    gone = []
    for left in _entries(database.parent, rf"\.{re.escape(database.name)}{re.escape(FETCHED)}\w+"):
        with suppress(OSError), held(left):
            shutil.rmtree(left)
            gone.append(left)
    return gone


@contextmanager
def held(folder: Path) -> Iterator[int]:
    """Hold a folder, so that nobody removes it; raises OSError while another process does."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor
    finally:
        os.close(descriptor)


def clear(path: Path) -> None:
    """Remove a leftover of the same name whose writer is gone; raise if the writer lives."""
    try:
        descriptor = open_file(path, os.O_RDWR, follow=False)
    except FileNotFoundError:
        return
    except NotAFile:  # nobody holds its lock, so its writer is gone
        remove(path)
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DatabaseBusy(
            f"Another command is writing {path} at this moment.",
            hint="Wait until it has ended, then run this again.",
        ) from None
    finally:
        os.close(descriptor)
    remove(path)


def remove(path: Path) -> None:
    """Remove a file and SQLite's files next to it, as far as they exist."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def is_same_file(descriptor: int, path: Path) -> bool:
    """Return whether the path still names the file of this descriptor."""
    try:
        found = path.lstat()
    except OSError:
        return False
    opened = os.fstat(descriptor)
    return (found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino)


named_failures = partial(translated_errors, otherwise=BackupFailed)
"""`named_failures(path, doing="write")` raises a BackupFailed for what the table of errors does not have."""
raise_named = partial(raise_translated, otherwise=BackupFailed)
"""The same in an except clause."""


def clean_up(database: Path, folder: Path | None = None) -> tuple[Path, ...]:
    """Finish or remove what a killed command left; return the removed files.

    The caller holds the database's lock. Only files with this package's names are touched, and none
    whose writer lives (it holds a flock on the file): `db backup create` works without the lock.
    """
    database = database.resolve()
    backups = backup_folder(database, folder)
    gone: list[Path] = []
    try:
        for path in _entries(backups, rf"\.{re.escape(database.stem)}-.*"):
            gone += _settle(path)
        # Of the database, and of a file that is named after it, such as its `.token`.
        written = rf"\.{re.escape(database.name)}(\.\w+)?\.tmp(-\w+|\.lock)?"
        for path in _entries(database.parent, written):
            gone += _discard(path)
        gone += remove_fetched(database)
        gone += _unlinked_twins(database)
        gone += _cold_journal(database)
    except ENGINE_ERRORS as error:
        raise_named(error, database, doing="put away what a crash left next to")
    return tuple(gone)


def _entries(folder: Path, pattern: str) -> Iterator[Path]:
    """Yield the files of a folder whose whole name matches; none if there is no folder."""
    wanted = re.compile(pattern)
    try:
        entries = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    yield from (path for path in entries if wanted.fullmatch(path.name))


def _settle(path: Path) -> list[Path]:
    """Finish or remove one leftover of the backup folder."""
    if path.name.endswith(".json" + DELISTED):
        target = path.with_name(path.name[1:].removesuffix(".json" + DELISTED) + ".db")
        target.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        return [target, path]
    if path.name.endswith(".json" + TEMPORARY) and _is_abandoned(path):
        manifest = path.with_name(path.name[1:].removesuffix(TEMPORARY))
        if manifest.with_suffix(".db").exists() and not manifest.exists():
            path.rename(manifest)  # it was flushed before its backup got its name
            flush(manifest.parent)
            return []
    return _discard(path)


def _discard(path: Path) -> list[Path]:
    if not re.search(r"\.tmp(-wal|-shm|-journal|\.lock)?$", path.name) or not _is_abandoned(path):
        return []
    path.unlink(missing_ok=True)
    return [path]


def _is_abandoned(path: Path) -> bool:
    """Return whether the writer of a temporary file is gone; for `-wal` and the like, of its main file."""
    main = path.with_name(re.sub(r"(\.tmp)(-wal|-shm|-journal|\.lock)$", r"\1", path.name))
    try:
        descriptor = open_file(main, follow=False)
    except (FileNotFoundError, NotAFile):
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _unlinked_twins(database: Path) -> list[Path]:
    """Remove the second name that a restore gave the database, if it was killed before the swap."""
    gone: list[Path] = []
    try:
        live = database.stat()
    except FileNotFoundError:
        return []
    if live.st_nlink < 2:
        return []
    for path in list_asides(database):
        found = path.stat()
        if (found.st_dev, found.st_ino) == (live.st_dev, live.st_ino):
            for kept, side in zip(side_files(path), side_files(database), strict=True):
                if kept.exists() and not side.exists():
                    kept.rename(side)
            path.unlink()
            gone.append(path)
    return gone


def _cold_journal(database: Path) -> list[Path]:
    """Remove a rollback journal that SQLite does not need and would not remove by reading.

    A kill just before the journal was flushed leaves one that is not hot: readers ignore it, and the
    next write to a rollback-mode database removes it. So write, without changing anything. The probe
    reports anything else that is wrong with the file.
    """
    journal = side_files(database)[2]
    if not journal.exists() or not database.exists():
        return []
    with suppress(GatewayError, sqlite3.Error):
        require_own_logs(database)
        with write_lock(database) as live:
            (version,) = live.execute("PRAGMA user_version").fetchone()
            live.execute(f"PRAGMA user_version={version}")
            commit(live)
    return [] if journal.exists() else [journal]
