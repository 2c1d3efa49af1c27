"""Coarse timeouts: many timers that share one event-loop timer.

Calls set and cancel thousands of timeouts a second that almost never fire. Here a timeout costs one
set entry instead of a timer of its own, and may fire up to one tick late (ADR 42).
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType


class Timer(ABC):
    """A callback due at about `at`, in event-loop seconds; `at` may be moved."""

    at = 0.0

    @abstractmethod
    def fire(self) -> None:
        """Run the callback. The timer is no longer set by then, and may be set again."""


class TimerWheel:
    """The set timers. The event-loop timer runs only while there are any."""

    def __init__(self, tick_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._tick_s = tick_s
        self._set: set[Timer] = set()
        self._ticking: asyncio.TimerHandle | None = None

    def now(self) -> float:
        """Return the current time in event-loop seconds."""
        return self._loop.time()

    def set(self, timer: Timer, delay_s: float) -> None:
        """Set a timer."""
        timer.at = self.now() + delay_s
        self._set.add(timer)
        if self._ticking is None:
            self._ticking = self._loop.call_later(self._tick_s, self._tick)

    def unset(self, timer: Timer) -> None:
        """Cancel a timer that has not fired."""
        self._set.discard(timer)

    def _tick(self) -> None:
        now = self.now()
        try:
            for timer in [timer for timer in self._set if timer.at <= now]:
                self._set.discard(timer)
                timer.fire()
        finally:  # one that fails does not keep the others from firing, at the next tick
            again = bool(self._set)
            self._ticking = self._loop.call_later(self._tick_s, self._tick) if again else None


class Deadline(Timer):
    """Cancels the task inside its block when it expires; the task then sees TimeoutError."""

    _expired = False

    def __init__(self, timers: TimerWheel, patience_s: float) -> None:
        self._timers = timers
        self._patience_s = patience_s

    def __enter__(self) -> Self:
        """Start the timeout."""
        task = asyncio.current_task()
        assert task is not None, "a deadline is for a task"
        self._task, self._cancelling = task, task.cancelling()
        self._timers.set(self, self._patience_s)
        return self

    def extend(self) -> None:
        """Restart the timeout after progress."""
        self.at = self._timers.now() + self._patience_s

    def fire(self) -> None:
        """Cancel the task."""
        self._expired = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Stop the timeout; a cancellation from elsewhere stays a cancellation."""
        self._timers.unset(self)
        over = self._expired and self._task.uncancel() <= self._cancelling
        if over and kind is asyncio.CancelledError:
            raise TimeoutError from error
