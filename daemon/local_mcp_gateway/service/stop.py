"""The wish to stop, as a signal handler can express it."""

from __future__ import annotations

import threading
import time
from typing import Final

LOOK_S: Final = 0.05


class StopEvent(threading.Event):
    """An event without a lock.

    A signal handler runs between two bytecodes of the main thread. `threading.Event.set` holds a lock
    for a few of them, so a second signal that came just then waited for the first one's lock for ever:
    a supervisor that is killed sends its worker several signals in a row, and people press Ctrl-C twice.
    """

    _asked = False

    def set(self) -> None:
        """Ask for a stop; also from a signal handler, and in the middle of another one."""
        self._asked = True

    def is_set(self) -> bool:
        """Tell whether a stop was asked for."""
        return self._asked

    def wait(self, timeout: float | None = None) -> bool:
        """Return after `timeout` seconds, or about `LOOK_S` after a stop was asked for; tell which."""
        until = None if timeout is None else time.monotonic() + timeout
        while not self._asked:
            left = LOOK_S if until is None else until - time.monotonic()
            if left <= 0:
                break
            time.sleep(min(left, LOOK_S))
        return self._asked
