"""Where an upstream stands, who waits for it, and for how long. Runs on the event loop."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.gateway.upstreams.lost import UpstreamLost

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.upstreams.connection import Connection

FIRST_PAUSE_S: Final = 0.5


class State(StrEnum):
    """Where an upstream stands."""

    IDLE = "idle"
    CONNECTING = "connecting"
    READY = "ready"
    FAILED = "failed"


class Waiters:
    """The calls that wait for a connection."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[Connection]] = set()

    async def wait(self) -> Connection:
        """Return the next connection that is made; raise when the attempt for it fails."""
        waiter: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            return await waiter
        finally:
            self._waiting.discard(waiter)

    def resolve(self, connection: Connection) -> None:
        """Hand the connection to all who wait."""
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(connection)

    def reject(self, reason: str) -> None:
        """Tell all who wait that there is none."""
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(UpstreamLost(reason))


def moment_in(seconds: float) -> str:
    """Return the time so many seconds from now, ISO 8601 in UTC."""
    moment = datetime.now(UTC) + timedelta(seconds=seconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def backoff_s(failures: int, most_s: float) -> float:
    """Return how long to pause after that many failures in a row: doubling, with jitter."""
    pause_s = min(FIRST_PAUSE_S * 2 ** min(failures - 1, 16), most_s)
    return random.uniform(pause_s / 2, pause_s)
