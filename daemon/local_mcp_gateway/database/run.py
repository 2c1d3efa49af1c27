"""One unit of work on a database: how it reports progress and whether it should stop.

Passed down as one value, since everything that takes long has to report and to stop: the lock, the
checks, a backup, the migrations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import TYPE_CHECKING, TypeAlias

from local_mcp_gateway.errors import Interrupted
from local_mcp_gateway.frozen import frozen
from local_mcp_gateway.log import ignore

if TYPE_CHECKING:
    import threading

    from local_mcp_gateway.log import Emit

Progress: TypeAlias = Callable[[str, int, int], None]
"""`progress(phase, done, total)`, often: bytes of a `backup`, migrations of `rehearse TAG` and
`apply TAG` (called before each); a `total` of 0 says only that the work goes on."""


def no_progress(phase: str, done: int, total: int) -> None:
    """Show nothing."""


@frozen
class Run:
    """Reports and stops one unit of work. Its methods may be called from any thread."""

    emit: Emit = field(default=ignore, kw_only=True)
    progress: Progress = field(default=no_progress, kw_only=True)
    stop: threading.Event | None = field(default=None, kw_only=True)
    """Set by a signal."""

    @property
    def stopped(self) -> bool:
        """Return whether a signal asked to stop."""
        return self.stop is not None and self.stop.is_set()

    def checkpoint(self, doing: str = "before anything was committed") -> None:
        """Raise Interrupted when a signal asked to stop; `doing` completes "Stopped by a signal …"."""
        if self.stopped:
            raise Interrupted(f"Stopped by a signal {doing}.")


UNWATCHED = Run()
"""No reports, and nothing stops it."""
