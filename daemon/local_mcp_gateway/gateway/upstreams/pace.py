"""How long to wait before a stream that a server has ended is opened again."""

from __future__ import annotations

from typing import Final

FIRST_S: Final = 1.0
LEAST_S: Final = 0.2
MOST_S: Final = 60.0


class Pace:
    """As the server has asked, else a second; twice as long after each stream that brought nothing."""

    def __init__(self) -> None:
        self._quiet = 0
        self._asked_s: float | None = None

    def heard(self, retry_ms: int | None) -> None:
        """Take note that something came, and of when the server wants to be asked again."""
        self._quiet = 0
        if retry_ms is not None:
            self._asked_s = retry_ms / 1000

    def pause_s(self) -> float:
        """Return how long to wait after a stream has ended."""
        pause_s = FIRST_S if self._asked_s is None else self._asked_s
        pause_s = max(pause_s, LEAST_S) * float(1 << min(self._quiet, 16))
        self._quiet += 1
        return min(pause_s, MOST_S)
