"""One unit of work on a database: how it reports progress and whether it should stop.

Passed down as one value, since everything that takes long has to report and to stop: the lock, the
checks, a backup, the migrations.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import field
from time import perf_counter
from typing import TYPE_CHECKING, Final, TypeAlias

from local_mcp_gateway.errors import Interrupted
from local_mcp_gateway.formats import size
from local_mcp_gateway.frozen import frozen

if TYPE_CHECKING:
    from local_mcp_gateway.log import Emit

Progress: TypeAlias = Callable[[str, int, int], None]
"""`progress(phase, done, total)`, often: bytes of a `backup` and of what is `read`, migrations of `rehearse TAG` and
`apply TAG` (called before each); a `total` of 0 says only that the work goes on."""
PHASES: Final = {
    "check": "checking the database",
    "backup": "backing up",
    "read": "reading back",
    "verify": "checking the copy",
    "flush": "flushing to the disk",
    "compare": "comparing with the newest backup of",
    "copy": "copying",
    "fetch": "fetching from the replica",
    "rehearse": "rehearsing",
    "apply": "applying",
    "count": "counting rows",
    "result": "checking rows and references",
    "durable": "committing and checking the result",
}
"""What the phases are called where a person reads them."""


PROGRESS_LINES: Final = "LMG_PROGRESS_LINES"
"""Where this variable is set, a command tells its progress on stderr, in lines for the program that runs it."""
_LINE: Final = "progress: "


def progress_line(phase: str, done: int, total: int) -> str:
    """Return a report of progress as one line."""
    return f"{_LINE}{done} {total} {phase}\n"


def read_progress(line: str) -> tuple[str, int, int] | None:
    """Return the report of progress that a line is; None for any other line."""
    done, _, rest = line.removeprefix(_LINE).partition(" ")
    total, _, phase = rest.strip().partition(" ")
    if not line.startswith(_LINE) or not (done.isdecimal() and total.isdecimal()):
        return None
    return phase, int(done), int(total)


def describe_progress(phase: str, done: int, total: int) -> tuple[str, int | None]:
    """Return a phase in words, and its percentage if that is known."""
    what, _, tag = phase.partition(" ")
    words = PHASES.get(what, what)
    if tag:
        place = f", {done + 1} of {total}" if total > 1 else ""
        return f"{words} {tag}{place}", None
    return (f"{words} {size(total)}", 100 * done // total) if total > 0 else (words, None)


def no_report(event: str, /, **fields: object) -> None:
    """Report nothing."""


def no_progress(phase: str, done: int, total: int) -> None:
    """Show nothing."""


class Phases:
    """How long each phase of a run took, in milliseconds, in the order in which they began."""

    def __init__(self) -> None:
        self._spent: dict[str, float] = {}
        self._now = ""
        self._since = perf_counter()

    def begin(self, phase: str) -> None:
        """End the previous phase, and begin or resume this one."""
        now = perf_counter()
        if self._now:
            self._spent[self._now] += (now - self._since) * 1000
        self._now, self._since = phase, now
        self._spent.setdefault(phase, 0.0)

    @property
    def durations_ms(self) -> dict[str, float]:
        """Return the milliseconds of each phase so far."""
        self.begin(self._now)
        return dict(self._spent)

    def ms(self, phase: str) -> float:
        """Return the milliseconds of one phase so far, for its log event."""
        return round(self.durations_ms[phase], 3)


POLL_S: Final = 0.05
"""Between two looks of a `StopEvent` that is waited for."""


class StopEvent(threading.Event):
    """An event without a lock, safe to set from a signal handler.

    A signal handler runs between two bytecodes of the main thread. `threading.Event.set` holds a lock for a
    few of them, so a second signal at that moment would deadlock on the first one's lock. That happens: a
    dying supervisor sends its worker several signals in a row, and people press Ctrl-C twice.
    """

    _asked = False

    def set(self) -> None:
        """Request a stop; also from a signal handler that interrupts another one."""
        self._asked = True

    def is_set(self) -> bool:
        """Tell whether a stop was requested."""
        return self._asked

    def wait(self, timeout: float | None = None) -> bool:
        """Wait `timeout` seconds, or until about `POLL_S` after a stop request; return whether there was one."""
        until = None if timeout is None else time.monotonic() + timeout
        while not self._asked:
            left = POLL_S if until is None else until - time.monotonic()
            if left <= 0:
                break
            time.sleep(min(left, POLL_S))
        return self._asked


@frozen
class Run:
    """Reports and stops one unit of work. Its methods may be called from any thread."""

    emit: Emit = field(default=no_report, kw_only=True)
    progress: Progress = field(default=no_progress, kw_only=True)
    stop: threading.Event | None = field(default=None, kw_only=True)
    """Set by a signal."""
    phases: Phases = field(default_factory=Phases, kw_only=True)

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
