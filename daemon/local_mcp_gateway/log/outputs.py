"""Where events go once they are rendered: to a stream as lines, or to the journal as entries."""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from local_mcp_gateway.log.file import NotKept

if TYPE_CHECKING:
    from local_mcp_gateway.log import Sink
    from local_mcp_gateway.log.journal import Journal


class Entries:
    """A writer of entries of the journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._lost = 0

    def info(self, _: str, datagram: bytes) -> None:
        """Send an entry."""
        if not self._journal.send(datagram):
            self._lost += 1

    debug = info

    def warning(self, text: str, datagram: bytes) -> None:
        """Send an entry that somebody has to see."""
        # The journal is gone or full: what someone has to see still goes to stderr.
        if not self._journal.send(datagram) and not _told_on_stderr(text):
            self._lost += 1

    error = warning

    def together(self) -> AbstractContextManager[None]:
        """Do nothing: an entry is a datagram."""
        return nullcontext()

    @property
    def taking(self) -> bool:
        """Tell whether the journal took the last entry."""
        return self._journal.taking

    def take_lost(self) -> int:
        """Return how many entries the journal did not take since the last time."""
        lost, self._lost = self._lost, 0
        return lost


def _told_on_stderr(text: str) -> bool:
    """Write a line, unless that would wait: under systemd it is the same journal that reads it."""
    try:
        descriptor = sys.stderr.fileno()
        if not select.select([], [descriptor], [], 0)[1]:
            return False
        os.write(descriptor, text.encode("utf-8", "backslashreplace") + b"\n")
    except (OSError, ValueError):
        return False
    return True


class Lines:
    """A line writer: one write call a line, so that lines of several threads never mix."""

    taking = True

    def __init__(self, stream: Sink) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._held: list[str] | None = None
        self._lost = 0

    def msg(self, message: str) -> None:
        """Write a line, or hold it for those that come together with it."""
        with self._lock:
            if self._held is None:
                self._write(message + "\n")
            else:
                self._held.append(message + "\n")

    debug = info = warning = error = msg

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write the lines of the block with one call at its end."""
        with self._lock:
            self._held = []
        try:
            yield
        finally:
            with self._lock:
                held, self._held = self._held, None
                if held:
                    self._write("".join(held))

    def take_lost(self) -> int:
        """Return how many lines a file did not take since the last time."""
        with self._lock:
            lost, self._lost = self._lost, 0
        return lost

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except NotKept as error:
            self._lost += error.lines
        except (OSError, ValueError):
            # Whoever read our stderr has gone, or the disk that it goes to is full. That is no
            # reason to stop guarding a database.
            return
