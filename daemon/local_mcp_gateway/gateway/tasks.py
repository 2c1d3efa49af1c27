"""Task groups whose tasks end with their owner and fail independently.

    gateway ⊃ upstream ⊃ connection ⊃ refresh of its lists
    request ⊃ tasks that write and watch its response

Use `asyncio.TaskGroup` where a task and its owner must fail together. Use `TaskScope` where the owner
continues when one task fails. Why not anyio's task groups: ADR 38.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVarTuple

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
