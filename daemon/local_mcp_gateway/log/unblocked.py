"""Keep the event loop free of a slow reader of the log.

A write to a pipe that nobody empties blocks. During the start that is harmless (the guard has a thread
of its own) and useful: an event is out before the next step begins. While serving it would stop every
call, so then a thread writes, and what does not fit into its queue is counted instead of kept.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING

from local_mcp_gateway.log import AT

if TYPE_CHECKING:
    from local_mcp_gateway.log import Emit

MOST_WAITING = 10_000
FLUSH_S = 2.0


class Unblocked:
    """An Emit in front of another one; `start` and `stop` say when a thread does the writing."""

    def __init__(self, emit: Emit, *, most_waiting: int = MOST_WAITING) -> None:
        self._emit = emit
        self._queue: queue.Queue[tuple[str, dict[str, object]] | None] = queue.Queue(most_waiting)
        self._thread: threading.Thread | None = None
        self._dropped = 0
        self._stuck = False

    def __call__(self, event: str, /, **fields: object) -> None:
        """Write now, or let the thread write."""
        if self._stuck:
            return
        if self._thread is None:
            self._emit(event, **fields)
            return
        try:
            self._queue.put_nowait((event, {**fields, AT: time.time()}))
        except queue.Full:
            self._dropped += 1

    def start(self) -> None:
        """Write in a thread from now on."""
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, for a moment; afterwards write at once again, unless the reader is stuck."""
        thread = self._thread
        if thread is None:
            return
        end = time.monotonic() + FLUSH_S
        try:
            self._queue.put(None, timeout=FLUSH_S)
        except queue.Full:
            self._stuck = True
        thread.join(max(0.0, end - time.monotonic()))
        self._stuck = self._stuck or thread.is_alive()
        self._thread = None

    def _write(self) -> None:
        while (waiting := self._queue.get()) is not None:
            event, fields = waiting
            self._emit(event, **fields)
            if self._queue.empty():
                self._tell_dropped(self._emit)
        self._tell_dropped(self._emit)

    def _tell_dropped(self, emit: Emit) -> None:
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            emit("log.dropped", count=dropped)
