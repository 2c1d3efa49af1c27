"""How long one server may keep the event loop with what it says, before the others have their turn.

A server that babbles is read no faster than that: what it has written waits in its pipe or socket, and
then the server does.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

TURN_S: Final = 0.005
REST: Final = 2
"""How many times as long as its turn a server waits for the next one."""


class FairShare:
    """Begins when it is made."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin."""
        self._began = time.monotonic()

    def rest_s(self) -> float:
        """Return how long to rest now: nothing until the turn is over."""
        took_s = time.monotonic() - self._began
        return took_s * REST if took_s > TURN_S else 0.0

    async def rest(self) -> None:
        """Rest if the turn is over, and begin anew."""
        if rest_s := self.rest_s():
            await asyncio.sleep(rest_s)
            self.begin()
