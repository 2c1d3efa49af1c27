"""Watch a folder with inotify, or by polling where inotify is not available.

inotify's limits apply to the user, not to the process, so an open editor and bundler can use them up.
The watcher then polls and tries inotify again from time to time. It does not use the polling of
watchfiles, which compares whole seconds and misses the second of two quick saves. inotify follows the
inode, not the name: a folder that was deleted and recreated, as by a branch checkout, is watched again.

`wait_until_stable` reads the folder once its files are no longer being written.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import anyio
import anyio.from_thread
import anyio.to_thread

from local_mcp_gateway.migrate import unfinished
from local_mcp_gateway.regular_file import read_present

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterator
    from pathlib import Path

    from watchfiles import Change

    from local_mcp_gateway.log import Emit

    Changes = set[tuple[Change, str]]
    Files = dict[str, tuple[int, int, int, int]]


POLL_S: Final = 0.3
RETRY_INOTIFY_S: Final = 30.0
"""How long to poll before inotify is tried again."""
_WATCHFILES_ERRORS: Final = frozenset({"WatchfilesRustInternalError", "PanicException"})
"""The exceptions of watchfiles besides OSError, by name: its compiled part exports neither."""


@dataclass(frozen=True, slots=True)
class WatchSpec:
    """A folder, and which of its files matter."""

    folder: Path
    """Absolute; it may be gone for a while."""
    wanted: Callable[[Change, str], bool]
    recursive: bool = True
    step_ms: int = 50
    """Changes are reported after this long without another one."""
    debounce_ms: int = 400
    """... or after this long."""
    wake_ms: int = 100
    """The longest time until a report, which may be empty."""


async def changes(watched: WatchSpec, emit: Emit) -> AsyncGenerator[Changes]:
    """Yield one set once no change is missed any more, then each that is not empty.

    Nothing wakes the event loop in between. After cancellation it ends within `POLL_S`.
    """
    seen = changes_blocking(watched, emit)
    try:
        yield await anyio.to_thread.run_sync(next, seen)
        while True:
            yield await anyio.to_thread.run_sync(_wait, seen)
    finally:
        seen.close()


def _wait(seen: Generator[Changes]) -> Changes:
    """Return the next changes; the caller runs in a thread of the event loop."""
    while not (changed := next(seen)):
        anyio.from_thread.check_cancelled()
    return changed


def changes_blocking(watched: WatchSpec, emit: Emit) -> Generator[Changes]:
    """Yield changes for ever; an empty set after `wake_ms` or `POLL_S` without a change.

    From the first set on no change is missed; one may be reported twice.
    """
    known = _files(watched)
    reported = False
    while True:
        again_at = 0.0
        begun = False
        try:
            for changed in _by_inotify(watched):
                missed = set() if begun else _differences(known, _files(watched))
                if reported:
                    emit("dev.watching", folders=[str(watched.folder)])
                begun, reported = True, False
                yield changed | missed
        except BaseException as error:
            if not isinstance(error, OSError) and type(error).__name__ not in _WATCHFILES_ERRORS:
                raise
            again_at = time.monotonic() + RETRY_INOTIFY_S
            if not reported:
                _report_error(watched.folder, error, emit)
                reported = True
        if begun:
            known = {}  # report everything there as new
        known = yield from _by_polling(watched, known, again_at)


def _by_inotify(watched: WatchSpec) -> Iterator[Changes]:
    """Yield inotify's events until the name refers to another folder."""
    from watchfiles import Change, watch

    gone = (Change.deleted, str(watched.folder))
    number = _number(watched.folder)
    with suppress(FileNotFoundError):
        for changed in watch(
            watched.folder,
            watch_filter=None,  # a filter would suppress the timeouts while unwanted files change
            recursive=watched.recursive,
            step=watched.step_ms,
            debounce=watched.debounce_ms,
            rust_timeout=watched.wake_ms,
            yield_on_timeout=True,
            raise_interrupt=True,
        ):
            yield {(change, path) for change, path in changed if watched.wanted(change, path)}
            if gone in changed or _number(watched.folder) != number:
                return


def _by_polling(
    watched: WatchSpec, known: Files, again_at: float
) -> Generator[Changes, None, Files]:
    """Yield the changes found by polling until inotify may be tried again; return the last state."""
    while True:
        time.sleep(POLL_S)
        now = _files(watched)
        yield _differences(known, now)
        known = now
        if time.monotonic() >= again_at and _number(watched.folder):
            return known


def _files(watched: WatchSpec) -> Files:
    """Return each file with metadata that every write changes, even one that resets the mtime."""
    from watchfiles import Change

    found: Files = {}
    for folder, folders, names in os.walk(watched.folder):
        for name in names:
            path = os.path.join(folder, name)  # noqa: PTH118  a Path for each takes longer than the rest
            if watched.wanted(Change.modified, path):
                with suppress(OSError):
                    status = os.stat(path)  # noqa: PTH116
                    found[path] = (
                        *(status.st_ino, status.st_size),
                        *(status.st_mtime_ns, status.st_ctime_ns),
                    )
        if not watched.recursive:
            folders.clear()
    return found


def _differences(before: Files, now: Files) -> Changes:
    from watchfiles import Change

    return {
        *((Change.added, path) for path in now.keys() - before.keys()),
        *((Change.deleted, path) for path in before.keys() - now.keys()),
        *(
            (Change.modified, path)
            for path in now.keys() & before.keys()
            if now[path] != before[path]
        ),
    }


def _number(folder: Path) -> int | None:
    try:
        return folder.stat().st_ino
    except OSError:
        return None


def _report_error(folder: Path, error: BaseException, emit: Emit) -> None:
    reason = str(error).partition(" about [")[0].rstrip(".")
    emit(
        "dev.polling",
        message=f"Saved files in {folder} cannot be watched with inotify and are polled instead: {reason}.",
        hint="Raise fs.inotify.max_user_instances and fs.inotify.max_user_watches (sysctl).",
    )


PAUSE_S = 0.025
"""Pause between two reads. An editor's write and rename are microseconds apart, a copy of many files ms."""
JOURNAL = "meta/_journal.json"
PATIENCE_S = 1.0
"""How long a file may stay empty or end inside a statement. After that, SQLite decides about it."""


@dataclass(frozen=True, slots=True)
class FolderState:
    """A folder at one moment: each file's name, the hash of its bytes, and when it was written, in ns.

    With the time, what was changed and changed back in between is told from what stayed.
    """

    files: tuple[tuple[str, str, int], ...]
    unfinished: tuple[str, ...]
    """Files that are empty or whose last statement is not complete."""


NOTHING: Final = FolderState((), ())
"""The state before the first read."""


def folder_state(folder: Path) -> FolderState:
    """Read every file that decides what is applied: `*.sql` and the journal."""
    found = read_present([*folder.glob("*.sql"), *folder.glob("*/*.sql"), folder / JOURNAL])
    files = {str(path.relative_to(folder)): path for path in sorted(found)}
    return FolderState(
        tuple(
            (name, sha256(found[path]).hexdigest(), written_at(path))
            for name, path in files.items()
        ),
        unfinished({name: found[path] for name, path in files.items() if name != JOURNAL}),
    )


def written_at(path: Path) -> int:
    """Return when the file was written last, in nanoseconds; 0 if it is not there any more."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


async def wait_until_stable(folder: Path, known: frozenset[str] = frozenset()) -> FolderState:
    """Return the folder once nobody writes to it; `known` are files that existed before."""
    before = folder_state(folder)
    waited_s = 0.0
    while True:
        await anyio.sleep(PAUSE_S)
        waited_s += PAUSE_S
        now = folder_state(folder)
        # An editor may be about to put a missing file back.
        growing = now.unfinished or known - {name for name, *_ in now.files}
        if now == before and (not growing or waited_s >= PATIENCE_S):
            return now
        if now != before:
            waited_s = 0.0
        before = now
