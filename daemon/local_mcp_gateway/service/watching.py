"""Watch files by the kernel's inotify; where that is used up, by looking at them.

How many files and programs may be watched is a limit of the user, not of a process: an editor and a
bundler that are open use it up. That is no reason to serve nothing, or to miss what is saved.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from watchfiles import Change

    from local_mcp_gateway.log import Emit

    Changes = set[tuple[Change, str]]

_ITS_OWN: Final = frozenset({"WatchfilesRustInternalError", "PanicException"})
"""What the watcher raises when it cannot go on; both come out of its compiled part, which names neither."""


async def changes(
    watch: Callable[..., AsyncIterator[Changes]], emit: Emit
) -> AsyncIterator[Changes]:
    """Yield what `watch` does: watchfiles' `awatch`, with all its arguments but `force_polling`."""
    try:
        async for seen in watch():
            yield seen
    except BaseException as error:
        if type(error).__name__ not in _ITS_OWN:
            raise
        _tell(error, emit)
        async for seen in watch(force_polling=True):
            yield seen


def changes_blocking(watch: Callable[..., Iterator[Changes]], emit: Emit) -> Iterator[Changes]:
    """Yield what `watch` does: watchfiles' `watch`, likewise."""
    try:
        yield from watch()
    except BaseException as error:
        if type(error).__name__ not in _ITS_OWN:
            raise
        _tell(error, emit)
        yield from watch(force_polling=True)


def _tell(error: BaseException, emit: Emit) -> None:
    emit(
        "dev.polling",
        message=f"Saved files cannot be watched and are looked for instead: {error}.",
        hint="Raise fs.inotify.max_user_instances and fs.inotify.max_user_watches (sysctl).",
    )
