"""Write formatted events to a stream, a rotated file or the journal, directly or from a thread.

A write to a pipe that nobody reads blocks. During the start that is harmless, since the guard has a
thread of its own, and useful: an event is written before the next step begins. While the gateway
serves, it would block every call, so a thread writes then.

The standard library's QueueHandler, QueueListener and RotatingFileHandler are not used:
docs/adr/0035-the-log-has-a-writer-of-its-own.md says why.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from local_mcp_gateway.log import AT, LEVEL
from local_mcp_gateway.log.events import LEVEL_OF, LEVELS
from local_mcp_gateway.regular_file import open_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from local_mcp_gateway.log.formatters import Formatter
    from local_mcp_gateway.log.journal import Journal, JournalEntry

MOST_WAITING = 10_000
"""How many events wait for the thread; further ones are counted instead of kept."""
GATHER_S = 0.02
"""The thread wakes once for everything that arrives within this time: waking for each event would take the
GIL from the calls as often."""
FLUSH_S = 2.0
"""How long a stop waits for a blocked reader."""


def configure(format: str, level: str, stream: TextIO | None = None) -> Log:
    """Return the Emit that writes events to `stream` (default: stderr), from any thread.

    `format` is auto, console, json or journal; `level` is the lowest that is written, empty for info.
    An event has left the process when the call returns, so the log shows in which phase a process was
    killed.
    """
    return Log(level, lambda: _open_stream(format, stream or sys.stderr))


def log_to_file(path: Path, level: str, *, most_bytes: int = 4 * 1024 * 1024) -> Log:
    """Return the Emit that appends JSON lines to a file; a full one is renamed to `.1`."""
    return Log(level, lambda: _open_file(path, most_bytes))


class Log:
    """An Emit that formats events and writes them; see `configure`."""

    def __init__(self, level: str, open_output: Callable[[], tuple[Formatter, Writer]]) -> None:
        self.set_level(level)
        self._open_output = open_output
        self._output: tuple[Formatter, Writer] | None = None
        self.lost = 0
        """Events that could not be formatted or written, and are not reported yet."""

    def __call__(self, event: str, /, **fields: object) -> None:
        """Write one event."""
        if self.wants(event, fields):
            self.write([(event, fields)])

    def set_level(self, level: str) -> None:
        """Write events of this level and above from now on; empty for info."""
        self._least = LEVELS[level or "info"]

    def wants(self, event: str, fields: dict[str, object]) -> bool:
        """Set the level of an event among its fields, and return whether events of it are written."""
        level = fields[LEVEL] = fields.get(LEVEL) or LEVEL_OF[event]
        return LEVELS[str(level)] >= self._least

    def write(self, events: Sequence[tuple[str, dict[str, object]]]) -> bool:
        """Write events of any level with one call. Return False when the output accepted none of them."""
        if self._output is None:
            self._output = self._open_output()
        format_events, writer = self._output
        entries = format_events(events)
        refused = writer.write(entries) if entries else 0
        self.lost += len(events) - len(entries) + refused
        return not entries or refused < len(entries)


def _open_stream(format: str, stream: TextIO) -> tuple[Formatter, Writer]:
    from local_mcp_gateway.log.formatters import choose_format, formatter
    from local_mcp_gateway.log.journal import Journal

    chosen = choose_format(format, stream)
    writer = JournalWriter(Journal()) if chosen == "journal" else StreamWriter(stream)
    return formatter(chosen, stream), writer


def _open_file(path: Path, most_bytes: int) -> tuple[Formatter, Writer]:
    from local_mcp_gateway.log.formatters import formatter

    return formatter("json"), RotatedFile(path, most_bytes=most_bytes)


class Writer(Protocol):
    """Where formatted events are written."""

    def write(self, entries: Sequence[Any], /) -> int:
        """Write the entries, and return how many of them were rejected. Raises nothing."""


class StreamWriter:
    """Writes lines to a stream, with one call, so that lines of several threads never mix."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def write(self, lines: Sequence[str]) -> int:
        """Write lines. A failing stream cannot be reported anywhere, so nothing is counted."""
        text = "".join(f"{line}\n" for line in lines)
        with self._lock:
            try:
                self._stream.write(text)
                self._stream.flush()
            except (OSError, ValueError):
                # The reader of our stderr has ended, or its disk is full: the database is guarded anyway.
                pass
        return 0


def rotated(path: Path) -> Path:
    """Return where a full log file goes."""
    return path.with_name(f"{path.name}.1")


class RotatedFile:
    """Writes lines to a file; a full one is renamed to `.1`, replacing the one before.

    Several processes may write to it: each reopens it, and the one that fills it renames it.
    """

    def __init__(self, path: Path, *, most_bytes: int) -> None:
        self._path = path
        self._most = most_bytes
        self._torn = False
        """The disk was full in the middle of a line: begin the next one on a new line."""

    def write(self, lines: Sequence[str]) -> int:
        """Append lines with one system call, and return how many the disk rejected."""
        data = b"\n" * self._torn + "".join(f"{line}\n" for line in lines).encode()
        done = 0
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            descriptor = open_file(self._path, flags, follow=False)
            try:
                while done < len(data):
                    done += os.write(descriptor, data[done:])
                self._rotate(os.fstat(descriptor))
            finally:
                os.close(descriptor)
        except OSError:
            pass
        refused = data[max(done, self._torn) :].count(b"\n")
        if done:
            self._torn = not data[:done].endswith(b"\n")
        return refused

    def _rotate(self, written: os.stat_result) -> None:
        # Unless another process has renamed it since: then the name has a file that is not full.
        if written.st_size > self._most and os.path.samestat(written, self._path.stat()):
            self._path.replace(rotated(self._path))


class JournalWriter:
    """Sends entries to the journal; urgent ones go to stderr when the journal does not accept them."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def write(self, entries: Sequence[JournalEntry]) -> int:
        """Send entries, and return how many were accepted nowhere."""
        return sum(
            not self._journal.send(entry.datagram)
            and not (entry.urgent and _write_to_stderr(entry.message))
            for entry in entries
        )


def _write_to_stderr(line: str) -> bool:
    """Write a line unless that would block: under systemd the same journal reads it."""
    try:
        descriptor = sys.stderr.fileno()
        if not select.select([], [descriptor], [], 0)[1]:
            return False
        os.write(descriptor, line.encode("utf-8", "backslashreplace") + b"\n")
    except (OSError, ValueError):
        return False
    return True


class BackgroundWriter:
    """An Emit in front of a log: between `start` and `stop` a thread does the writing."""

    def __init__(self, log: Log, *, most_waiting: int = MOST_WAITING) -> None:
        self._log = log
        self._most_waiting = most_waiting
        self._waiting: deque[tuple[str, dict[str, object]]] = deque()
        self._arrived = threading.Event()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._dropped = 0
        self._taking = True
        """Whether the last write was accepted: lost events are reported to the same output."""
        self._stuck = False

    def __call__(self, event: str, /, **fields: object) -> None:
        """Write now, or let the thread write."""
        if self._stuck:
            return
        if self._thread is None:
            self._log(event, **fields)
        elif not self._log.wants(event, fields):
            return
        elif len(self._waiting) >= self._most_waiting:
            self._dropped += 1
        else:
            fields[AT] = time.time()
            self._waiting.append((event, fields))
            if not self._arrived.is_set():
                self._arrived.set()

    def set_level(self, level: str) -> None:
        """Write events of this level and above from now on."""
        self._log.set_level(level)

    def start(self) -> None:
        """Write in a thread from now on. Raises RuntimeError if none can be started: nothing changes."""
        self._ending.clear()
        thread = threading.Thread(target=self._run, name="log", daemon=True)
        thread.start()
        self._thread = thread

    def stop(self) -> None:
        """Write what is queued, then write directly again; give up on a blocked reader."""
        if self._thread is None:
            return
        self._ending.set()
        self._arrived.set()
        self._thread.join(FLUSH_S)
        self._stuck = self._thread.is_alive()
        self._thread = None
        if not self._stuck:
            self._write_waiting()  # what other threads reported while this one ended

    def _run(self) -> None:
        while not self._ending.is_set():
            self._arrived.wait()
            self._ending.wait(GATHER_S)
            self._arrived.clear()  # first: whatever arrives from now on wakes the thread again
            self._write_waiting()
        self._write_waiting()

    def _write_waiting(self) -> None:
        # Whatever arrives meanwhile waits for the next time.
        if events := [self._waiting.popleft() for _ in range(len(self._waiting))]:
            self._taking = self._log.write(events)
        if not self._taking:
            return
        dropped, self._dropped = self._dropped, 0
        if lost := dropped + self._log.lost:
            self._log.lost = 0
            self._log("log.dropped", count=lost)
            if self._log.lost:  # rejected too: reported with the next loss
                self._log.lost = lost
