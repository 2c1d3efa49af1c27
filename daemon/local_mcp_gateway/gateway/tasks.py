"""Tasks that end with what they belong to.

    gateway ⊃ upstream ⊃ connection ⊃ refresh of its lists
    request ⊃ what writes and watches its response

Where a task is a part of what its owner does, so that both fail together, `asyncio.TaskGroup` is enough. A `TaskScope` is
for an owner that goes on: each task fails alone. Why not anyio's task groups: ADR 38.
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

    What a task raises is given to `failed`: neither its siblings nor the owner hear of it.
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
        """Cancel what still runs, and wait for it. What the block itself raises goes on as it is."""
        self._ended = True
        for task in self._started:
            task.cancel()
        if self._started:
            await super().__aexit__(None, None, None)

    def start(
        self, work: Callable[[*Arguments], Coroutine[Any, Any, object]], *arguments: *Arguments
    ) -> asyncio.Future[None]:
        """Run `work` in a task. Where the block has ended, nothing runs, and what is returned is cancelled."""
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
        except Exception as error:  # noqa: BLE001  it is told, and the others go on
            self._failed(error)


def described(error: Exception) -> str:
    """Say what a failed task raised, and where: the last line of our code that it passed."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"
