"""Encrypt a backup to age keys while it is sent, and decrypt one while it is fetched: nothing is stored twice.

pyrage reads and writes Python files, so a pipe stands between it and the store, with a thread at one end. Each
side counts and hashes what went by.
"""

from __future__ import annotations

import hashlib
import io
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from local_mcp_gateway.backup.create import Job
from local_mcp_gateway.backup.objects import PIECE_BYTES
from local_mcp_gateway.errors import BackupDamaged
from local_mcp_gateway.regular_file import open_file

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence
    from pathlib import Path

    from pyrage.x25519 import Identity, Recipient

    from local_mcp_gateway.backup.manifest import Backup
    from local_mcp_gateway.database import Run


class Counted:
    """The size and the SHA-256 of what went by."""

    def __init__(self) -> None:
        self.bytes = 0
        self._digest = hashlib.sha256()

    def add(self, piece: bytes | memoryview) -> None:
        """Count a piece."""
        self.bytes += len(piece)
        self._digest.update(piece)

    @property
    def sha256(self) -> str:
        """Return the hash so far, in hex."""
        return self._digest.hexdigest()


class _Source(io.RawIOBase):
    """A file whose content is counted as it is read."""

    def __init__(self, file: io.FileIO) -> None:
        self._file, self.read_so_far = file, Counted()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer) or 0
        self.read_so_far.add(memoryview(buffer)[:count])
        return count


class _Limited(io.BufferedIOBase):
    """A file that takes no more than it should hold, and counts."""

    def __init__(self, file: io.BufferedRandom, most: int) -> None:
        self._file, self._most, self.written = file, most, Counted()

    def writable(self) -> bool:
        return True

    def write(self, piece: Any) -> int:
        self.written.add(piece)
        if self.written.bytes > self._most:
            raise OSError("there is more than the manifest says")
        return self._file.write(piece)


def encrypted(
    backup: Backup, recipients: Sequence[Recipient], sent: Counted, run: Run
) -> Generator[bytes, None, None]:
    """Yield the encrypted backup; raises before the last piece if the file is not the backup."""
    reading, writing = os.pipe()
    job = Job(lambda: _seal_into(backup, recipients, writing))
    held: bytes | None = None
    with os.fdopen(reading, "rb", buffering=PIECE_BYTES) as pipe:
        while piece := pipe.read(PIECE_BYTES):
            run.checkpoint("while a backup was copied")
            run.progress("copy", min(sent.bytes, backup.bytes), backup.bytes)
            if held is not None:
                yield held
            sent.add(piece)
            held = piece
    job.outcome()
    if held is not None:
        yield held


def _seal_into(backup: Backup, recipients: Sequence[Recipient], writing: int) -> None:
    """Encrypt a backup into a pipe. Runs in a thread of its own."""
    import pyrage

    with io.BufferedWriter(io.FileIO(writing, "wb"), PIECE_BYTES) as pipe:
        with io.FileIO(open_file(backup.path), "rb") as file:
            source = _Source(file)
            pyrage.encrypt_io(io.BufferedReader(source, PIECE_BYTES), pipe, list(recipients))
        read = source.read_so_far
        if (read.bytes, read.sha256) != (backup.bytes, backup.sha256):
            raise BackupDamaged(
                f"The backup {backup.name} was changed after it was made: it is not copied."
            )


class NotDecrypted(Exception):
    """What was fetched does not decrypt; `no_key`: none of the keys fits, or what names them was changed."""

    def __init__(self, *, no_key: bool) -> None:
        super().__init__()
        self.no_key = no_key


def decrypt_into(
    target: Path, pieces: Iterable[bytes], identities: Sequence[Identity], most: int
) -> Counted:
    """Decrypt into an empty file, at most so many bytes; return what is in it.

    Raises NotDecrypted, or what the pieces raise.
    """
    import pyrage

    reading, writing = os.pipe()
    pouring = Job(lambda: _pour(pieces, writing))
    failed: Exception | None = None
    try:
        with os.fdopen(reading, "rb") as source, target.open("r+b") as file:
            plain = _Limited(file, most)
            pyrage.decrypt_io(source, plain, list(identities))
            file.flush()
    except (pyrage.DecryptError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk; a block that was changed has no number
        failed = error
    pouring.outcome()
    if failed is not None:
        raise NotDecrypted(no_key="No matching keys" in str(failed)) from failed
    return plain.written


def _pour(pieces: Iterable[bytes], writing: int) -> None:
    """Write all of it into a pipe, or until its reader closes it."""
    with suppress(BrokenPipeError), os.fdopen(writing, "wb") as pipe:
        for piece in pieces:
            pipe.write(piece)
