"""Call back at about a time: many alarms on one timer.

A timer of its own for each call would be made and cancelled thousands of times a second, for times that
are hardly ever reached; an alarm costs the entry in a set. It may ring up to a tick late.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType


class Timer(ABC):
    """What can be called at about `at`, in seconds of the event loop; that may be moved."""

    at = 0.0

    @abstractmethod
    def fire(self) -> None:
        """Do what it was set for. It is set no more by then, and may be set again."""


class TimerWheel:
    """The alarms that are set. The timer runs only while there are any."""

    def __init__(self, tick_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._tick_s = tick_s
        self._set: set[Timer] = set()
        self._timer: asyncio.TimerHandle | None = None

    def now(self) -> float:
        """Return the time that alarms go by."""
        return self._loop.time()

    def set(self, timer: Timer, delay_s: float) -> None:
        """Set an alarm."""
        timer.at = self.now() + delay_s
        self._set.add(timer)
        if self._timer is None:
            self._timer = self._loop.call_later(self._tick_s, self._look)

    def unset(self, timer: Timer) -> None:
        """Take an alarm back, if it has not rung."""
        self._set.discard(timer)

    def _look(self) -> None:
        now = self.now()
        for timer in [timer for timer in self._set if timer.at <= now]:
            self._set.discard(timer)
            timer.fire()
        self._timer = self._loop.call_later(self._tick_s, self._look) if self._set else None


class Deadline(Timer):
    """Cancels the task that is inside when it is over, which then sees TimeoutError."""

    _expired = False

    def __init__(self, timers: TimerWheel, patience_s: float) -> None:
        self._timers = timers
        self._patience_s = patience_s

    def __enter__(self) -> Self:
        """Begin."""
        task = asyncio.current_task()
        assert task is not None, "a deadline is for a task"
        self._task, self._cancelling = task, task.cancelling()
        self._timers.set(self, self._patience_s)
        return self

    def extend(self) -> None:
        """Begin anew: there was a sign of life."""
        self.at = self._timers.now() + self._patience_s

    def fire(self) -> None:
        """Cancel what is inside."""
        self._expired = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """End; a cancellation that was not ours alone stays one."""
        self._timers.unset(self)
        over = self._expired and self._task.uncancel() <= self._cancelling
        if over and kind is asyncio.CancelledError:
            raise TimeoutError from error
