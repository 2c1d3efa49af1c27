"""Messages that are kept for a client that comes back, within bounds of number and bytes.

All backlogs of the gateway draw on one budget. When it is spent, the one that keeps the most gives its
oldest messages, so a client with large answers does not cost another one its few small ones. Who asks
for what is gone can tell: numbers count on.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Final

KEPT_BYTES: Final = 16 * 1024 * 1024
"""How much is kept for all clients together."""


class Budget:
    """How many bytes the backlogs hold, and may hold, together.

    They are sorted by how many bits their sizes have, and one of those with the most gives. So a message
    costs the same with ten thousand clients as with ten.
    """

    def __init__(self, most_bytes: int = KEPT_BYTES) -> None:
        self.bytes = 0
        self._most_bytes = most_bytes
        self._sizes: list[dict[Backlog, None]] = [{} for _ in range(64)]

    def change(self, backlog: Backlog, size: int) -> None:
        """Count what a backlog keeps more or less."""
        self.bytes += size
        before, now = (backlog.bytes - size).bit_length(), backlog.bytes.bit_length()
        if before != now:
            self._sizes[before].pop(backlog, None)
            if now:
                self._sizes[now][backlog] = None

    def make_room(self) -> None:
        """Let the largest give until it is not too much."""
        while self.bytes > self._most_bytes:
            largest = next(backlogs for backlogs in reversed(self._sizes) if backlogs)
            next(iter(largest)).drop_oldest()


class Backlog:
    """The newest messages of one stream, numbered from 1."""

    __slots__ = ("_budget", "_kept", "_most", "bytes", "newest")

    def __init__(self, budget: Budget, most: int) -> None:
        self.newest = 0
        """Number of the newest message, kept or not."""
        self.bytes = 0
        self._budget = budget
        self._most = most
        self._kept: deque[bytes] = deque()

    def add(self, message: bytes) -> int:
        """Keep a message and return its number; the oldest go when it is too much."""
        self.newest += 1
        self._kept.append(message)
        self.bytes += len(message)
        self._budget.change(self, len(message))
        self._budget.make_room()
        if len(self._kept) > self._most:
            self.drop_oldest()
        return self.newest

    def after(self, number: int) -> list[tuple[int, bytes]]:
        """Return the kept messages that came after that number."""
        first = self.newest - len(self._kept) + 1
        return [(at, body) for at, body in enumerate(self._kept, first) if at > number]

    def holds(self, message: bytes, number: int) -> bool:
        """Whether the same message is among those that came after that number."""
        newer = islice(reversed(self._kept), max(0, self.newest - number))
        return any(body == message for body in newer)

    def lost_after(self, number: int) -> int:
        """Return how many that came after that number are not kept any more."""
        return max(0, self.newest - len(self._kept) - number)

    def drop_oldest(self) -> None:
        """Forget the message that came first."""
        size = len(self._kept.popleft())
        self.bytes -= size
        self._budget.change(self, -size)

    def forget(self, number: int) -> None:
        """Forget the messages up to that number: their client has them, and does not come back."""
        while self._kept and self.newest - len(self._kept) < number:
            self.drop_oldest()

    def close(self) -> None:
        """Forget all, and keep nothing of what comes: the client is gone."""
        self._most = 0
        self.forget(self.newest)
