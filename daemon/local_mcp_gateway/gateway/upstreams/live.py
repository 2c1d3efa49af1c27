"""What every connection to a server has: an end that is told once, and what runs beside it until then."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from local_mcp_gateway.gateway.upstreams.connection import Identity

if TYPE_CHECKING:
    from collections.abc import Coroutine


class Live:
    """A way to one server, until it is lost. Made on the event loop."""

    def __init__(self) -> None:
        self.identity = Identity()
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def lost(self) -> str | None:
        """Why it ended, or None while it lasts."""
        return self._lost.result() if self._lost.done() else None

    async def wait_lost(self) -> str:
        """Return the reason when it has ended."""
        return await asyncio.shield(self._lost)

    def lose(self, reason: str) -> None:
        """Give it up for good; the server is met anew by the next call."""
        if not self._lost.done():
            self._lost.set_result(reason)

    def start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run something beside, until `end_tasks`."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def end_tasks(self) -> None:
        """Cancel what runs beside, and wait for it."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
