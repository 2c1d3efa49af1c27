"""What must reach a client of 2024-11-05: answers, and what it is asked. Its stream is the only way.

News that such a client does not take in time are dropped, oldest first, as for everybody. These cannot be
dropped: a client that lets too much of them wait does not read, and is cut off.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


class Mail:
    """Messages that wait for their client, oldest first."""

    def __init__(
        self, most_bytes: int, stir: Callable[[], None], cut_off: Callable[[], None]
    ) -> None:
        self._most_bytes = most_bytes
        self._stir = stir
        self._cut_off = cut_off
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._closed = False

    def put(self, message: bytes) -> None:
        """Let a message wait; one alone may be of any size."""
        if self._closed:
            return
        if self._waiting and self._bytes + len(message) > self._most_bytes:
            self.close()
            self._cut_off()
        else:
            self._waiting.append(message)
            self._bytes += len(message)
            self._stir()

    def take(self) -> list[bytes]:
        """Return what waits, for the client."""
        taken = list(self._waiting)
        self._waiting.clear()
        self._bytes = 0
        return taken

    def close(self) -> None:
        """Forget what waits, and all that comes."""
        self.take()
        self._closed = True
