"""How long to wait: before a reconnection, and before lists that changed are fetched again. Pure."""

from __future__ import annotations

import random
from typing import Final

FIRST_S: Final = 1.0
LEAST_S: Final = 0.2
MOST_S: Final = 60.0

SETTLE_S: Final = 0.05
"""How long list_changed notifications are collected before the lists are fetched again."""
SETTLE_MOST_S: Final = 5.0
FREE: Final = 8
"""How many changes in quick succession are allowed before the debounce time grows."""
CALM_S: Final = 1.0


class ReconnectBackoff:
    """Delay before reopening a stream: the server's `retry`, else 1 s; doubled after each empty stream."""

    def __init__(self) -> None:
        self._quiet = 0
        self._asked_s: float | None = None

    def heard(self, retry_ms: int | None) -> None:
        """Record that an event arrived, and the reconnect delay that the server asked for."""
        self._quiet = 0
        if retry_ms is not None:
            self._asked_s = retry_ms / 1000

    def pause_s(self) -> float:
        """Return how long to wait after a stream has ended."""
        pause_s = FIRST_S if self._asked_s is None else self._asked_s
        pause_s = max(pause_s, LEAST_S) * float(1 << min(self._quiet, 16))
        self._quiet += 1
        return min(pause_s, MOST_S)


class ChangeDebounce:
    """Debounce time for list changes; doubles for a server whose lists never stop changing.

    Some servers announce a change whenever a list is fetched; without this the two would loop at full
    speed.
    """

    def __init__(self) -> None:
        self._in_a_row = 0
        self._calm_at = 0.0

    def pause_s(self, now: float) -> float:
        """Return how long to debounce after lists that are fetched now because they changed."""
        self._in_a_row = self._in_a_row + 1 if now < self._calm_at else 0
        pause_s = min(SETTLE_S * 2.0 ** min(max(0, self._in_a_row - FREE), 16), SETTLE_MOST_S)
        self._calm_at = now + 2 * pause_s + CALM_S
        return pause_s


FIRST_PAUSE_S: Final = 0.5


def backoff_s(failures: int, most_s: float) -> float:
    """Return the delay after that many consecutive failures: exponential, with jitter."""
    pause_s = min(FIRST_PAUSE_S * 2 ** min(failures - 1, 16), most_s)
    return random.uniform(pause_s / 2, pause_s)
