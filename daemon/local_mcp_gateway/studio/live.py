"""Tell open pages what has changed, as server-sent events, at most once a second.

A page gets names of what changed and how often, not the data: it fetches the part of itself that shows
it, with its filters. So a busy gateway costs a page's work once a second, whatever the traffic,
and a slow browser only ever misses numbers that the next event repeats.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.studio.http import Receive, until_left

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable


PAUSE_S: Final = 1.0
ON_ITS_WAY_S: Final = 3.0
KEEP_ALIVE_S: Final = 20.0
MOST_STREAMS: Final = 24
KINDS: Final = {
    "call.finished": "calls",
    "upstream.connected": "servers",
    "upstream.starting": "servers",
    "upstream.lost": "servers",
    "upstream.stopped": "servers",
    "server.changed": "servers",
    "catalog.saved": "servers",
    "catalog.altered": "servers",
    "backup.created": "migrations",
    "database.restored": "migrations",
    "migration.applied": "migrations",
    "migration.hot_applied": "migrations",
    "migration.hot_refused": "migrations",
    "migration.reverted": "migrations",
    "migration.rewound": "migrations",
    "dev.recovered": "migrations",
    "service.reloaded": "migrations",
}
"""Event of the log → what of the pages it changes."""


class Live:
    """Passes on what has changed to every open stream. All methods run on the event loop."""

    def __init__(self) -> None:
        self._news: list[tuple[Counter[str], asyncio.Event]] = []
        self._heard: dict[str, float] = {}
        """Kind → when it changed last."""

    def on_event(self, event: str) -> None:
        """Take an event of the log."""
        if (kind := KINDS.get(event)) is not None:
            self._heard[kind] = time.monotonic()
            for changed, woken in self._news:
                changed[kind] += 1
                woken.set()

    async def stream(
        self, receive: Receive, is_in: Callable[[], bool] = lambda: True
    ) -> AsyncGenerator[bytes, None]:
        """Yield what changed until the browser leaves, its session is over or the daemon stops."""
        # What happened while the page was on its way may not be on it.
        just_now = time.monotonic() - ON_ITS_WAY_S
        changed = Counter({kind: 1 for kind, at in self._heard.items() if at > just_now})
        woken = asyncio.Event()
        if changed:
            woken.set()
        mine = (changed, woken)
        self._news.append(mine)
        if len(self._news) > MOST_STREAMS:
            oldest = self._news.pop(0)
            oldest[0]["leave"] = 1
            oldest[1].set()
        async with asyncio.TaskGroup() as tasks:
            left = tasks.create_task(_left(receive, woken))
            try:
                yield b"retry: 2000\n\n: open\n\n"
                while not left.done() and "leave" not in changed and is_in():
                    try:
                        await asyncio.wait_for(woken.wait(), KEEP_ALIVE_S)
                    except TimeoutError:
                        yield b": still here\n\n"
                        continue
                    if changed:
                        data = json.dumps(changed)
                        changed.clear()
                        woken.clear()
                        yield f"event: changed\ndata: {data}\n\n".encode()
                        await asyncio.wait({left}, timeout=PAUSE_S)
            finally:
                left.cancel()
                if mine in self._news:
                    self._news.remove(mine)


async def _left(receive: Receive, woken: asyncio.Event) -> None:
    await until_left(receive)
    woken.set()
