"""Call back at about a time: many alarms on one timer.

A timer of its own for each call would be made and cancelled thousands of times a second, for times that
are hardly ever reached; an alarm costs the entry in a set. It may ring up to a tick late.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType


class Alarm:
    """Rings at `at`, in seconds of the event loop; that may be moved.

    One that is unset or has rung lets go of whom it would call: who holds an alarm is usually called by it.
    """

    __slots__ = ("at", "ring")

    def __init__(self, at: float, ring: Callable[[], None]) -> None:
        self.at = at
        self.ring = ring


class Alarms:
    """The alarms that are set. The timer runs only while there are any."""

    def __init__(self, tick_s: float) -> None:
        self._tick_s = tick_s
        self._set: set[Alarm] = set()
        self._timer: asyncio.TimerHandle | None = None

    def set(self, delay_s: float, ring: Callable[[], None]) -> Alarm:
        """Set an alarm."""
        loop = asyncio.get_running_loop()
        alarm = Alarm(loop.time() + delay_s, ring)
        self._set.add(alarm)
        if self._timer is None:
            self._timer = loop.call_later(self._tick_s, self._look)
        return alarm

    def unset(self, alarm: Alarm) -> None:
        """Take an alarm back, if it has not rung."""
        self._set.discard(alarm)
        alarm.ring = _silent

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for alarm in [alarm for alarm in self._set if alarm.at <= now]:
            ring = alarm.ring
            self.unset(alarm)
            ring()
        self._timer = loop.call_later(self._tick_s, self._look) if self._set else None


def _silent() -> None:
    pass


class Deadline:
    """Cancels the task that is inside when it is over, which then sees TimeoutError."""

    __slots__ = ("_alarm", "_alarms", "_cancelling", "_expired", "_patience_s", "_task")

    def __init__(self, alarms: Alarms, patience_s: float) -> None:
        self._alarms = alarms
        self._patience_s = patience_s
        self._expired = False

    def __enter__(self) -> Self:
        """Begin."""
        task = asyncio.current_task()
        assert task is not None, "a deadline is for a task"
        self._task, self._cancelling = task, task.cancelling()
        self._alarm = self._alarms.set(self._patience_s, self._expire)
        return self

    def extend(self) -> None:
        """Begin anew: there was a sign of life."""
        self._alarm.at = asyncio.get_running_loop().time() + self._patience_s

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """End; a cancellation that was not ours alone stays one."""
        self._alarms.unset(self._alarm)
        over = self._expired and self._task.uncancel() <= self._cancelling
        if over and kind is asyncio.CancelledError:
            raise TimeoutError from error
