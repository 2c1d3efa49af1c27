"""Task groups whose tasks end with their owner and fail independently, and coarse timeouts.

    gateway ⊃ upstream ⊃ connection ⊃ refresh of its lists
    request ⊃ tasks that write and watch its response

Use `asyncio.TaskGroup` where a task and its owner must fail together. Use `TaskScope` where the owner
continues when one task fails. Why not anyio's task groups: ADR 38.

Calls set and cancel thousands of timeouts a second that almost never fire. With `TimerWheel` a timeout
costs one set entry instead of an event-loop timer of its own, and may fire up to one tick late (ADR 42).
"""

from __future__ import annotations

import asyncio
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVarTuple

if TYPE_CHECKING:
    from types import TracebackType

Arguments = TypeVarTuple("Arguments")


class TaskScope(asyncio.TaskGroup):
    """A task group that cancels its tasks when its block ends; the block ends after the last of them.

    An exception in a task goes to `failed`; it reaches neither the other tasks nor the owner.
    """

    def __init__(self, failed: Callable[[Exception], None]) -> None:
        super().__init__()
        self._failed = failed
        self._started: set[asyncio.Task[None]] = set()
        self._ended = False

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Cancel the running tasks and wait for them. An exception of the block propagates."""
        self._ended = True
        for task in self._started:
            task.cancel()
        if self._started:
            await super().__aexit__(None, None, None)

    def start(
        self, work: Callable[[*Arguments], Coroutine[Any, Any, object]], *arguments: *Arguments
    ) -> asyncio.Future[None]:
        """Run `work` in a task. After the block has ended nothing runs, and a cancelled task is returned."""
        if self._ended:
            never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            never.cancel()
            return never
        task = self.create_task(self._alone(work, *arguments))
        self._started.add(task)
        task.add_done_callback(self._started.discard)
        return task

    async def _alone(
        self, work: Callable[[*Arguments], Coroutine[Any, Any, object]], *arguments: *Arguments
    ) -> None:
        try:
            await work(*arguments)
        except Exception as error:  # noqa: BLE001  reported; the other tasks go on
            self._failed(error)


def described(error: Exception) -> str:
    """Describe what a failed task raised, and the last line of our code in its traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"


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
