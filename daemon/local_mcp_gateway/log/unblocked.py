"""Keep the event loop free of a slow reader of the log, and of a slow disk.

A write to a pipe that nobody empties blocks. During the start that is harmless (the guard has a thread
of its own) and useful: an event is out before the next step begins. While serving it would stop every
call, so then a thread writes, and what does not fit into its queue is counted instead of kept. The
thread is woken once for what comes within `GATHER_S`: woken for each event it would take the
interpreter from the calls as often.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from local_mcp_gateway.log import AT

if TYPE_CHECKING:
    from local_mcp_gateway.log import Log

MOST_WAITING = 10_000
GATHER_S = 0.02
FLUSH_S = 2.0


class Unblocked:
    """An Emit in front of a log; `start` and `stop` say when a thread does the writing."""

    def __init__(self, log: Log, *, most_waiting: int = MOST_WAITING) -> None:
        self._log = log
        self._most_waiting = most_waiting
        self._waiting: deque[tuple[str, dict[str, object]]] = deque()
        self._arrived = threading.Event()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._dropped = 0
        self._stuck = False

    def __call__(self, event: str, /, **fields: object) -> None:
        """Write now, or let the thread write."""
        if self._stuck:
            return
        if self._thread is None:
            self._log(event, **fields)
        elif len(self._waiting) >= self._most_waiting:
            self._dropped += 1
        else:
            fields[AT] = time.time()
            self._waiting.append((event, fields))
            if not self._arrived.is_set():
                self._arrived.set()

    def start(self) -> None:
        """Write in a thread from now on."""
        self._ending.clear()
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, for a moment; afterwards write at once again, unless the reader is stuck."""
        if self._thread is None:
            return
        self._ending.set()
        self._arrived.set()
        self._thread.join(FLUSH_S)
        self._stuck = self._thread.is_alive()
        self._thread = None
        if not self._stuck:
            self._write_waiting()  # what other threads told while this one ended

    def _write(self) -> None:
        while not self._ending.is_set():
            self._arrived.wait()
            self._ending.wait(GATHER_S)
            self._arrived.clear()  # before looking: what comes from now on wakes the thread again
            self._write_waiting()
        self._write_waiting()

    def _write_waiting(self) -> None:
        with self._log.together():
            for _ in range(len(self._waiting)):  # what comes meanwhile waits for the next time
                event, fields = self._waiting.popleft()
                try:
                    self._log(event, **fields)
                except Exception:  # noqa: BLE001  one event costs itself, not the log after it
                    self._dropped += 1
        self._tell_lost()

    def _tell_lost(self) -> None:
        if not self._log.taking:
            return  # told when it does again
        dropped, self._dropped = self._dropped, 0
        if lost := dropped + self._log.take_lost():
            self._log("log.dropped", count=lost)
            if self._log.take_lost():  # not taken either: told with the next that are lost
                self._dropped += lost
