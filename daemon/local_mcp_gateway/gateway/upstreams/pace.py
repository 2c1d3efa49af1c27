"""How long to wait before a server is asked for a stream, or for its lists, again. Pure."""

from __future__ import annotations

from typing import Final

FIRST_S: Final = 1.0
LEAST_S: Final = 0.2
MOST_S: Final = 60.0

SETTLE_S: Final = 0.05
"""How long list_changed notifications are gathered before the lists are fetched again."""
SETTLE_MOST_S: Final = 5.0
FREE: Final = 8
"""So many changes may come close upon each other before they are gathered for longer."""
CALM_S: Final = 1.0


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


class Gathering:
    """A moment; twice as long each time for a server whose lists never stop changing.

    Some announce a change whenever they are asked for a list: that would go on as fast as both can.
    """

    def __init__(self) -> None:
        self._in_a_row = 0
        self._calm_at = 0.0

    def pause_s(self, now: float) -> float:
        """Return how long to gather after lists that are fetched now, because they have changed."""
        self._in_a_row = self._in_a_row + 1 if now < self._calm_at else 0
        pause_s = min(SETTLE_S * 2.0 ** min(max(0, self._in_a_row - FREE), 16), SETTLE_MOST_S)
        self._calm_at = now + 2 * pause_s + CALM_S
        return pause_s
