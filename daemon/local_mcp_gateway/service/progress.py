"""Report the progress of a start: on the status line of `systemctl status` and as log events.

It derives from the start's events and the guard's progress. As long as the guard makes progress, it asks
systemd for more time, so that a long migration is not killed.
"""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from local_mcp_gateway.database import describe_progress
from local_mcp_gateway.log import tee

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from local_mcp_gateway.database import Progress
    from local_mcp_gateway.log import Emit
    from local_mcp_gateway.service.systemd import Notifier

LEAST_PAUSE_S = 0.5
"""The shortest pause between two progress notifications to systemd."""
REPORT_EVERY_S = 5.0
"""The interval of progress events; a shorter start logs none."""

_BEGINS = {
    "service.starting": "start",
    "guard.waiting": "wait",
    "guard.locked": "check",
    "guard.resolved": "prepare",
    "backup.created": "rehearse",
    "backup.reused": "rehearse",
    "migration.rehearsed": "apply",
    "guard.verified": "durable",
    "guard.ready": "serve",
}
"""The event that begins a phase → the phase."""
_WORDS = {
    "start": "starting",
    "wait": "waiting for the database's lock, held by process {pid}",
    "check": "checking the database",
    "prepare": "comparing migrations",
    "rehearse": "rehearsing the pending migrations",
    "apply": "applying the pending migrations",
    "durable": "committing and checking the result",
    "serve": "starting the gateway",
}
"""What is shown when a phase begins; its progress is told in the words of the guard."""


class StatusLine:
    """An Emit that shows the events of a start and the guard's progress on the status line."""

    def __init__(self, notifier: Notifier) -> None:
        self.phase = "start"
        self.tag: str | None = None
        self.percent: int | None = None
        self._notifier = notifier
        self._last = 0.0

    def __call__(self, event: str, /, **fields: object) -> None:
        """Show the phase that begins with this event, if any."""
        phase = _BEGINS.get(event)
        if phase is None:
            return
        self.phase, self.tag, self.percent = phase, None, None
        self._notifier.working(_WORDS[phase].format_map({"pid": "?", **fields}))

    def progress(self, phase: str, done: int, total: int) -> None:
        """Show the progress of a phase: `done` of `total` in its own unit, 0 for unknown.

        `phase` is its name, followed by a tag where there is one: `backup`, `rehearse 0003_tags`.
        """
        what, _, tag = phase.partition(" ")
        new = (what, tag or None) != (self.phase, self.tag)
        self.phase, self.tag = what, tag or None
        words, self.percent = describe_progress(phase, done, total)
        now = time.monotonic()
        if not new and now - self._last < LEAST_PAUSE_S:
            return
        self._last = now
        self._notifier.working(words if self.percent is None else f"{words}, {self.percent} %")

    def shared_with(self, other: Progress) -> Progress:
        """Return what shows the progress here and tells another as well."""

        def tell(phase: str, done: int, total: int) -> None:
            self.progress(phase, done, total)
            other(phase, done, total)

        return tell


async def _report(status: StatusLine, notifier: Notifier, emit: Emit) -> None:
    """Extend systemd's timeout and log the progress periodically: one statement may take minutes."""
    begun = time.monotonic()
    notifier.working()
    while True:
        await anyio.sleep(REPORT_EVERY_S)
        notifier.working()
        emit(
            "guard.progressed",
            phase=status.phase,
            tag=status.tag,
            percent=status.percent,
            duration_ms=round((time.monotonic() - begun) * 1000, 3),
        )


@asynccontextmanager
async def report_progress(
    status: StatusLine, notifier: Notifier, emit: Emit
) -> AsyncIterator[Emit]:
    """Report progress while the block runs, which reports its events to what this yields.

    The block's exceptions come out in an exception group.
    """
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_report, status, notifier, emit)
        try:
            yield tee(emit, status)
        finally:
            tasks.cancel_scope.cancel()
