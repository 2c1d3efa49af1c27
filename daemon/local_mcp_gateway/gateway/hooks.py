"""What an upstream's life is told, and whom it tells."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.gateway.call import Events, UpstreamLost

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.connection import Connection
    from local_mcp_gateway.gateway.upstream import Upstream
    from local_mcp_gateway.store.model import CatalogKind, ServerDefinition

FIRST_PAUSE_S: Final = 0.5
Open = Callable[["ServerDefinition", Events], Awaitable["Connection"]]


class State(StrEnum):
    """Where an upstream stands."""

    IDLE = "idle"
    CONNECTING = "connecting"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Hooks:
    """Whom an upstream tells, on the event loop: its identity and lists, and the server's messages."""

    listed: Callable[[Upstream, frozenset[CatalogKind], frozenset[CatalogKind]], None]
    """Lists were fetched: which are different, and of which the server said that they are."""
    connected: Callable[[Upstream], None]
    events: Callable[[Upstream], Events]
    watched: Callable[[Upstream], bool]
    """Whether a client listens for what the server says of a resource."""


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
