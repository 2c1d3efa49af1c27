"""Create, read and replace small files that only their owner may read, atomically and durably.

A new file is on the disk (temp, fsync, link, fsync of the folder) before it has its name, so a kill, a
full disk or a power cut leaves the whole file or none. Writers take turns by a `flock` on the folder.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.backup import temporary_file
from local_mcp_gateway.database import flush
from local_mcp_gateway.regular_file import NotAFile, open_file, write_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MOST_BYTES: Final = 64 * 1024


class Unusable(Exception):
    """Why a file cannot be used, as the end of a sentence, and what to do about it."""

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


def read(path: Path, *, private: bool = True) -> bytes | None:
    """Return up to 64 KiB of the file; None if there is none. Raises Unusable.

    With `private`, refuse a file that is not ours or that other users may read, as ssh does with its own.
    """
    try:
        descriptor = open_file(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except NotAFile as error:
        raise Unusable(
            f"{path} is {error.kind}, not a file", "Move it away, or give another place."
        ) from None
    except OSError as error:
        raise Unusable(
            f"{path} cannot be read ({error.strerror})", f"Give it to yourself: chmod 600 {path}"
        ) from None
    try:
        found = os.fstat(descriptor)
        if private and found.st_uid not in (os.geteuid(), 0):
            raise Unusable(
                f"{path} belongs to another user", "Give it to yourself, or move it away."
            )
        if private and found.st_mode & 0o077:
            raise Unusable(f"other users can read {path}", f"Run chmod 600 {path}")
        return os.read(descriptor, _MOST_BYTES)
    except OSError as error:
        raise Unusable(
            f"{path} cannot be read ({error.strerror})", "Put it back from your copy."
        ) from None
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[Path]:
    """Lock the folder; yield the file's path with symbolic links resolved. Raises OSError."""
    target = path.resolve()
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield target
    finally:
        os.close(folder)


def create(target: Path, content: bytes) -> bool:
    """Create the file if missing; return whether it was created. Durable; call it under `locked`."""
    if os.path.lexists(target):
        return False
    with _written(target, content) as temporary:
        os.link(temporary, target)  # unlike a rename, a link never replaces another file
    flush(target.parent)
    return True


def replace(target: Path, content: bytes) -> None:
    """Replace the file, if any. Durable; call it under `locked`."""
    with _written(target, content) as temporary:
        temporary.rename(target)
    flush(target.parent)


@contextmanager
def _written(target: Path, content: bytes) -> Iterator[Path]:
    temporary = target.with_name(f".{target.name}.tmp")
    with temporary_file(temporary) as descriptor:
        write_all(descriptor, content)
        os.fsync(descriptor)
        yield temporary
