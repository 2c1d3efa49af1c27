"""The log as a file beside the database, for `logs` where there is no journal.

JSON lines of the same form as on stderr. Full files are renamed to `.1`, the one before is dropped.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MOST_BYTES = 4 * 1024 * 1024


class NotKept(OSError):
    """The disk refused this many of the lines that were handed over."""

    def __init__(self, lines: int, cause: OSError) -> None:
        super().__init__(cause.errno, cause.strerror, cause.filename)
        self.lines = lines


class RotatedFile:
    """Where `configure` writes lines to. Raises NotKept when the disk refuses."""

    def __init__(self, path: Path, *, most_bytes: int = MOST_BYTES) -> None:
        self._path = path
        self._most = most_bytes
        self._descriptor = -1
        self._number = -1
        self._torn = False
        """The disk was full in the middle of a line: the next one begins on a line of its own."""

    def write(self, line: str) -> None:
        """Append lines, with one system call; rename the file when it is full.

        A process that was refused may write beside us, and whoever fills the file renames it.
        """
        data = b"\n" * self._torn + line.encode()
        done = 0
        try:
            status = self._status()
            if status is None or status.st_ino != self._number:
                status = self._open()
            while done < len(data):
                done += os.write(self._descriptor, data[done:])
        except OSError as error:
            raise NotKept(data[max(done, self._torn) :].count(b"\n"), error) from error
        finally:
            self._torn = not data[:done].endswith(b"\n") if done else self._torn
        if status.st_size + len(data) > self._most:
            with suppress(OSError):
                self._path.replace(self._path.with_name(self._path.name + ".1"))

    def flush(self) -> None:
        """Do nothing: a line that is written has left the process."""

    def isatty(self) -> bool:
        """Say that nobody watches."""
        return False

    def fileno(self) -> int:
        """Return the descriptor that was written to last."""
        return self._descriptor

    def _status(self) -> os.stat_result | None:
        try:
            return self._path.stat()
        except FileNotFoundError:
            return None

    def _open(self) -> os.stat_result:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o600)
        status = os.fstat(self._descriptor)
        self._number = status.st_ino
        return status
