"""How long a server may take until it is ready: to answer at all, and to take calls.

`npx` and `uvx` download a server before its first start, which may take minutes: a child may take longer
than `connect_timeout_s` while it is busy. A server that asks for roots refuses calls until it has them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.gateway.tasks import TaskScope

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.protocol import Answer

LOOKS: Final = 10
"""How often a child that is starting is checked within `connect_timeout_s`."""
MOST_START_S: Final = 900.0
"""How long a child may take to start, however busy it is."""
ROOTS_S: Final = 0.1
"""How long a new connection to a server that asks waits for its question, and again after the roots were
given: servers look at the folders first, refuse calls until then, and do not say when they are ready."""

BUSY_TICKS: Final = 10
BUSY_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Activity:
    """What a child and everything that it started have done so far, as far as the system tells."""

    processes: frozenset[int] = frozenset()
    ticks: int = 0
    """Hundredths of a second of processor time."""
    moved_bytes: int = 0
    """Bytes that were read and written: files, pipes and connections."""

    @classmethod
    def of(cls, session: int) -> Activity:
        """Look it up in /proc, which may take some milliseconds; nothing where there is none."""
        found, ticks, moved_bytes = set(), 0, 0
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError, ValueError, IndexError):  # it may end meanwhile
                stat = (process / "stat").read_text().rpartition(")")[2].split()
                if int(stat[3]) == session:
                    found.add(int(process.name))
                    ticks += sum(map(int, stat[11:15]))
                    counted = (process / "io").read_text().split()
                    moved_bytes += int(counted[1]) + int(counted[3])
        return cls(frozenset(found), ticks, moved_bytes)

    def is_progress_since(self, before: Activity) -> bool:
        """Return whether more was done than by a program that waits."""
        return (
            self.processes != before.processes
            or self.ticks - before.ticks >= BUSY_TICKS
            or self.moved_bytes - before.moved_bytes >= BUSY_BYTES
        )


class StartDeadline:
    """Limits the time of an attempt to connect; the limit is put off while the child is busy."""

    def __init__(
        self, slow: Callable[[float, str | None], None], failed: Callable[[Exception], None]
    ) -> None:
        self._slow = slow
        """Called while a start takes longer than its limit, with the seconds and the child's last line."""
        self._failed = failed
        self._child: int | None = None

    def child_started(self, pid: int) -> None:
        """Record the child that is to answer."""
        self._child = pid

    @asynccontextmanager
    async def within(self, limit_s: float, lines: Collection[str]) -> AsyncIterator[None]:
        """Raise TimeoutError if the block takes longer; `lines` are the last ones that the child wrote."""
        self._child = None
        async with asyncio.timeout(limit_s) as deadline, TaskScope(self._failed) as watching:
            watching.start(self._extend_while_busy, deadline, limit_s, lines)
            try:
                yield
            finally:
                self._child = None

    async def _extend_while_busy(
        self, deadline: asyncio.Timeout, limit_s: float, lines: Collection[str]
    ) -> None:
        """Put the deadline off whenever the child has done something, and say that it is starting."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        seen: Activity | None = None
        written = list(lines)
        while True:
            await asyncio.sleep(limit_s / LOOKS)
            if self._child is None:
                continue
            now = await asyncio.to_thread(Activity.of, self._child)
            took_s = loop.time() - began
            if seen is None:
                seen = now
            elif now.is_progress_since(seen) or written != list(lines):
                deadline.reschedule(min(loop.time() + limit_s, began + MOST_START_S))
                seen, written = now, list(lines)
            if took_s >= limit_s:
                self._slow(took_s, written[-1] if written else None)


class Settling:
    """Holds calls over a new connection back until its server has what it asks for at the beginning."""

    def __init__(self) -> None:
        self.done = asyncio.Event()
        self._asked = 0
        self._given = asyncio.Event()

    async def run(self, listed: asyncio.Event, patience_s: float, asks: Callable[[], bool]) -> None:
        """Let calls through once the lists have arrived, and the roots that it asked for before."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await listed.wait()
                if asks():
                    await asyncio.sleep(ROOTS_S)
                while self._asked:
                    await self._given.wait()
                    await asyncio.sleep(ROOTS_S)
        self.done.set()

    async def gives_roots(self, asking: Awaitable[Answer]) -> Answer:
        """Return the client's roots; calls wait for them if the connection is new."""
        self._asked += 1
        self._given.clear()
        try:
            return await asking
        finally:
            self._asked -= 1
            if not self._asked:
                self._given.set()
