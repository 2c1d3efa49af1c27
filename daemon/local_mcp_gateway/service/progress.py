"""What `systemctl status` shows while we work: one sentence, made from the events and the progress.

The same events go to the log; this only listens. It also asks systemd for more time whenever the guard
gets on with its work, so that a long migration is never killed for being slow.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from local_mcp_gateway.service.notify import Notifier

LEAST_PAUSE_S = 0.5
"""Progress is reported for every page; systemd need not hear more often than this."""

_WORDS = {
    "service.starting": "starting",
    "guard.waiting": "waiting for the database's lock, held by process {pid}",
    "guard.locked": "checking the database",
    "guard.resolved": "comparing migrations",
    "backup.created": "rehearsing the pending migrations",
    "migration.rehearsed": "applying the pending migrations",
    "guard.ready": "starting the gateway",
}
_PHASES = {
    "backup": "backing up",
    "rehearse": "rehearsing",
    "apply": "applying",
    "check": "checking",
}


class StatusLine:
    """Listens to the events of a start (as an Emit) and to the guard's progress."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._last = 0.0

    def __call__(self, event: str, /, **fields: object) -> None:
        """Show what the event means, if it means something to a person who waits."""
        words = _WORDS.get(event)
        if words is None or not self._notifier:
            return
        self._notifier.working(words.format_map({"pid": "?", **fields}))

    def progress(self, phase: str, done: int, total: int) -> None:
        """Show how far a phase is; `done` and `total` are in the phase's own unit."""
        now = time.monotonic()
        if not self._notifier or now - self._last < LEAST_PAUSE_S:
            return
        self._last = now
        share = f", {100 * done // total} %" if total > 0 else ""
        self._notifier.working(f"{_PHASES.get(phase, phase)}{share}")
