"""Write files so that a power cut leaves the old content or the new: temp file, fsync, rename, fsync.

temp (0600, O_EXCL, flock) → write → fsync → rename → fsync of the folder. In tests a file that was
renamed without the first fsync was 0 bytes after a power cut; a rename without the second was undone.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING

from local_mcp_gateway.database.errors import translated_errors
from local_mcp_gateway.database.transactions import flush
from local_mcp_gateway.errors import BackupFailed, DatabaseBusy
from local_mcp_gateway.regular_file import NotAFile, open_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700
FICLONE = 0x40049409
"""`ioctl` that shares a file's blocks with a new one (btrfs, XFS, bcachefs)."""
COPY_CHUNK_BYTES = 64 << 20


def make_folder(folder: Path) -> None:
    """Create the backup folder (0700) if it is missing, durably; an existing one is left as it is."""
    if folder.is_dir():
        return
    folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    flush(folder.parent)


@contextmanager
def temporary_file(path: Path) -> Iterator[int]:
    """Create an empty private file and yield its descriptor; remove it unless it was renamed.

    The flock tells `cleanup` that its writer lives; SIGKILL frees it. SQLite's own locks on the same
    file are of another kind and do not conflict.
    """
    clear(path)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        still_there = _is_same_file(descriptor, path)
        os.close(descriptor)
        if still_there:
            with suppress(OSError):  # the next start's cleanup tries again
                remove(path)


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
    """Remove a file and SQLite's files beside it, as far as they exist."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def copy_bytes(source: Path, descriptor: int) -> str:
    """Copy a file that has no writer into an empty one; return how: reflink, copy_file_range or read.

    The first two stay inside the kernel and, where the file system supports it, share the blocks.
    """
    with source.open("rb", buffering=0) as original:
        try:
            fcntl.ioctl(descriptor, FICLONE, original.fileno())
            return "reflink"
        except OSError as error:
            if error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
                raise
        try:
            _copy_in_kernel(original.fileno(), descriptor)
            return "copy_file_range"
        except OSError as error:
            if error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
                raise
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.lseek(original.fileno(), 0, os.SEEK_SET)
        while chunk := original.read(1 << 20):
            write_all(descriptor, chunk)
        return "read"


def write_all(descriptor: int, content: bytes) -> None:
    """Write every byte; a single `write` may write fewer."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _copy_in_kernel(source: int, target: int) -> None:
    left = os.fstat(source).st_size
    while left > 0:
        done = os.copy_file_range(source, target, min(left, COPY_CHUNK_BYTES))
        if done == 0:  # some file systems answer 0 instead of an error: fall back to reading
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        left -= done


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    opened = os.fstat(descriptor)
    return (found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino)


def named_failures(doing: str, path: Path) -> AbstractContextManager[None]:
    """Translate what SQLite or the system raises; `doing` completes "Cannot …".

    What the table of errors does not have is a BackupFailed.
    """
    return translated_errors(path, doing=doing, otherwise=BackupFailed)
