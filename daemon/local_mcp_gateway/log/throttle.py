"""Log once what happens thousands of times, and with the next one how often it was repeated. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from math import inf
from typing import Final

QUIET_S: Final = 10.0
MOST_KINDS: Final = 256
"""How many kinds are remembered: clients and libraries could make up any number of them."""


class Throttle:
    """Lets one event of each kind through in `QUIET_S`, and counts the others."""

    def __init__(self) -> None:
        self._last: dict[Hashable, tuple[float, int]] = {}
        """Kind → when one was let through, and how often it was repeated since."""

    def repeated(self, kind: Hashable, now: float) -> int | None:
        """Return how many were held back before this one, which is let through; None to hold it back too.

        `now` is in seconds of the monotonic clock.
        """
        last, repeated = self._last.get(kind, (-inf, 0))
        if now < last + QUIET_S:
            self._last[kind] = last, repeated + 1
            return None
        if len(self._last) >= MOST_KINDS:
            self._last.clear()
        self._last[kind] = now, 0
        return repeated
