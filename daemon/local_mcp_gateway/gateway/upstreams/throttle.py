"""Limit how long one server may occupy the event loop.

A server that sends too much is read more slowly: its output waits in the pipe or socket until the
server itself has to wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

TURN_S: Final = 0.005
REST: Final = 2
"""How many times the length of its turn a server waits for the next one."""


class FairShare:
    """One server's turn, starting now. Time spent waiting for the server counts as rest."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._used_s = 0.0
        self._began = self._left = clock()

    def begin(self) -> None:
        """Continue the turn after waiting for the server."""
        now = self._clock()
        used_s = self._used_s + self._left - self._began
        self._used_s = max(0.0, used_s - (now - self._left) / REST)
        self._began = self._left = now

    def rest_s(self) -> float:
        """Return how long to rest now: nothing until the turn is over."""
        self._left = self._clock()
        took_s = self._used_s + self._left - self._began
        return took_s * REST if took_s > TURN_S else 0.0

    async def rest(self) -> None:
        """Rest if the turn is over, and start a new one."""
        if rest_s := self.rest_s():
            await asyncio.sleep(rest_s)
            self._used_s = 0.0
            self._began = self._left = self._clock()
