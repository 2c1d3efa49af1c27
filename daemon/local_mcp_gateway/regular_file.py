"""Open a path only if it is a regular file, and copy one: a pipe would block forever, a device may have side effects.

The path is checked before it is opened, and the descriptor once more afterwards. Opening never blocks
(`O_NONBLOCK` has no effect on a regular file) and never acquires a controlling terminal.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from typing import TypeAlias

    Progress: TypeAlias = Callable[[str, int, int], None]

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
FICLONE = 0x40049409
"""`ioctl` that shares a file's blocks with a new one (btrfs, XFS, bcachefs)."""
COPY_CHUNK_BYTES = 64 << 20
_HANDED_OVER = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")
"""Paths that the caller's shell has already opened (`<(…)`): a pipe there has a writer."""


class NotAFile(OSError):
    """The path is not a regular file; `strerror` fits behind "cannot be read: "."""

    def __init__(self, kind: str, path: str) -> None:
        super().__init__(errno.ENXIO, f"it is {kind}", path)
        self.kind = kind


def require_file(path: str | os.PathLike[str], *, follow: bool = True) -> os.stat_result | None:
    """Raise NotAFile unless the path is a regular file; return its status, None if it does not exist."""
    try:
        status = os.stat(path, follow_symlinks=follow)  # noqa: PTH116  a path as text is faster
    except (FileNotFoundError, NotADirectoryError):
        return None
    require_kind(status, path)
    return status


def open_file(
    path: str | os.PathLike[str],
    flags: int = os.O_RDONLY,
    *,
    mode: int = 0o600,
    follow: bool = True,
) -> int:
    """Return a descriptor of the regular file; `flags` may create one. Raises OSError, NotAFile.

    Without `follow` a symbolic link is refused: another user may have put it there.
    """
    require_file(path, follow=follow)
    safely = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(path, flags | safely, mode)
    try:
        require_kind(os.fstat(descriptor), path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_bytes(path: Path, *, follow: bool = True) -> bytes:
    """Return the content of the regular file. Raises OSError, NotAFile."""
    with os.fdopen(open_file(path, follow=follow), "rb") as file:
        return file.read()


def read_present(paths: Iterable[Path]) -> dict[Path, bytes]:
    """Return the content of each regular file that can be read: one may be renamed since it was listed."""
    found = {}
    for path in paths:
        with suppress(OSError):
            found[path] = read_bytes(path)
    return found


def read_given(path: Path) -> bytes:
    """Return the content of a file that a person named; it may be a pipe of their shell."""
    if os.fspath(path).startswith(_HANDED_OVER):
        return path.read_bytes()
    return read_bytes(path)


def copy_bytes(source: Path, descriptor: int, progress: Progress | None = None) -> str:
    """Copy a file that has no writer into an empty one; return how: reflink, copy_file_range or read.

    The first two stay inside the kernel and, where the file system supports it, share the blocks. The phase
    of `progress` is `copy`.
    """
    with source.open("rb", buffering=0) as original:
        try:
            fcntl.ioctl(descriptor, FICLONE, original.fileno())
            return "reflink"
        except OSError as error:
            if error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
                raise
        try:
            _copy_in_kernel(original.fileno(), descriptor, progress)
            return "copy_file_range"
        except OSError as error:
            if error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
                raise
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.lseek(original.fileno(), 0, os.SEEK_SET)
        total = os.fstat(original.fileno()).st_size
        while chunk := original.read(1 << 20):
            write_all(descriptor, chunk)
            if progress is not None:
                progress("copy", original.tell(), total)
        return "read"


def write_all(descriptor: int, content: bytes) -> None:
    """Write every byte; a single `write` may write fewer."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _copy_in_kernel(source: int, target: int, progress: Progress | None) -> None:
    left = total = os.fstat(source).st_size
    while left > 0:
        if progress is not None:
            progress("copy", total - left, total)
        done = os.copy_file_range(source, target, min(left, COPY_CHUNK_BYTES))
        if done == 0:  # some file systems answer 0 instead of an error: fall back to reading
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        left -= done


def require_kind(status: os.stat_result, path: str | os.PathLike[str]) -> None:
    """Raise NotAFile unless this is the status of a regular file."""
    if not stat.S_ISREG(status.st_mode):
        kinds = (kind for is_kind, kind in _KINDS if is_kind(status.st_mode))
        raise NotAFile(next(kinds, "no regular file"), os.fspath(path))
