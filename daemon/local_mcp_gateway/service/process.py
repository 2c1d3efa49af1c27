"""The process itself: its event loop, its signals, its memory and its descriptors.

SIGTERM and SIGINT stop, SIGHUP reloads. The handlers are installed before anything else, so that a stop
during the guard reaches its worker thread (`stop`) and a stop while serving reaches the event loop
(`stopped()`).
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import threading
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from local_mcp_gateway.database import StopEvent
from local_mcp_gateway.errors import NoResources

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator
    from types import FrameType, TracebackType
    from typing import Self


STOP = (signal.SIGTERM, signal.SIGINT)
THREAD_S: Final = 5.0
"""How long a thread may take to begin, at least; at most twice as long."""


@contextmanager
def bounded_thread_starts(most_s: float = THREAD_S) -> Iterator[Callable[[], None]]:
    """Raise MemoryError in the main thread where it waits for a thread that had no memory to begin.

    Such a thread ends before it tells that it has begun, and CPython waits for that without a limit. Yields
    a function that lifts the bound. Main thread only; it uses SIGALRM.
    """
    waiting: FrameType | None = None

    def look(_: int, frame: FrameType | None) -> None:
        nonlocal waiting
        while frame is not None and frame.f_code is not threading.Thread.start.__code__:
            frame = frame.f_back
        if frame is not None and frame is waiting:
            raise MemoryError
        waiting = frame

    def lift() -> None:
        nonlocal waiting
        signal.setitimer(signal.ITIMER_REAL, 0)
        waiting = None

    before = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, most_s, most_s)
    try:
        yield lift
    finally:
        lift()
        signal.signal(signal.SIGALRM, before)


class Signals:
    """The stop and reload requests from outside. A context manager of the main thread."""

    def __init__(self) -> None:
        self.stop = StopEvent()
        self.name = ""
        """The signal that requested the stop, for the log."""
        self._asked = 0
        self._reload_wanted = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed: asyncio.Event | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Install the handlers."""
        for number in (*STOP, signal.SIGHUP):
            self._previous[number] = signal.signal(number, self._received)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Restore the previous handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def attach(self) -> None:
        """Pass signals on to the running event loop, including earlier ones."""
        import asyncio  # the commands without a loop use StopEvent only

        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._changed.set()

    async def stopped(self) -> None:
        """Return when a stop is requested."""
        await self._until(self.stop.is_set)

    async def second_signal(self) -> None:
        """Return when a stop is requested a second time: the user does not want to wait."""
        await self._until(lambda: self._asked > 1)

    async def reload(self) -> None:
        """Return when a reload is requested; requests since the last one count as one."""
        await self._until(lambda: self._reload_wanted)
        self._reload_wanted = False

    def request_reload(self) -> None:
        """Request a reload, as SIGHUP does."""
        self._reload_wanted = True
        self._wake()

    def request_stop(self, name: str) -> None:
        """Request a stop, as SIGTERM does."""
        self.name = self.name or name
        self._asked += 1
        self.stop.set()
        self._wake()

    def _received(self, number: int, frame: FrameType | None) -> None:
        del frame
        if number == signal.SIGHUP:
            self.request_reload()
        else:
            self.request_stop(signal.Signals(number).name)

    def _wake(self) -> None:
        # In a signal handler, this is the only call that may touch the loop.
        if self._loop is not None and self._changed is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._changed.set)

    async def _until(self, condition: Any) -> None:
        assert self._changed is not None, "attach() comes first"
        while not condition():
            self._changed.clear()
            if not condition():
                await self._changed.wait()


# glibc keeps the memory of large responses: once the first large block is freed, it places such blocks in
# the heap (mallopt(3), M_MMAP_THRESHOLD), which cannot shrink below later allocations. A check costs
# 20 µs, a trim with nothing to release 0.3 ms.

TRIM_EVERY_S: Final = 10.0
SLACK_BYTES: Final = 8 * 1024 * 1024
"""Growth above the smallest size seen that is tolerated."""


async def give_memory_back() -> None:
    """Trim the heap when it has grown, until cancelled; return at once without glibc."""
    import ctypes  # not needed by a start

    import anyio

    try:
        trim, least = ctypes.CDLL(None).malloc_trim, _resident_bytes()
    except (OSError, AttributeError):
        return
    while True:
        await anyio.sleep(TRIM_EVERY_S)
        with suppress(OSError):  # no free descriptor: skip this check
            now = _resident_bytes()
            least = min(least, now)
            if now > least + SLACK_BYTES:
                trim(0)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


AFTER_OBJECTS = 20_000
"""The generation 0 threshold of the garbage collector. Python's own is 700."""


def collect_rarely() -> None:
    """Exempt all present objects from garbage collection, and collect less often.

    Call once everything is up. With Python's defaults, collecting took a tenth of the time of calls.
    """
    gc.freeze()
    gc.set_threshold(AFTER_OBJECTS, 20, 20)


def event_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes uvloop's event loop; None where it is not installed: asyncio's own does the same, slower."""
    try:
        import uvloop
    except ImportError:
        return None

    class Loop(uvloop.Loop):
        """Look names up in Python's threads: libuv ends the process where it cannot start its own."""

        async def getaddrinfo(self, host: Any, port: Any, **how: int) -> Any:
            look_up = partial(socket.getaddrinfo, host, port, **how)
            return await self.run_in_executor(None, look_up)

        async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> Any:
            return await self.run_in_executor(None, socket.getnameinfo, sockaddr, flags)

    return Loop


def keep_from_children() -> None:
    """Let no child inherit a descriptor that came from outside, beyond stdin, stdout and stderr.

    Python's own are never inherited, and neither are SQLite's; uvloop closes none in a child.
    """
    with suppress(OSError):  # no /proc
        for entry in Path("/proc/self/fd").iterdir():
            with suppress(OSError):  # the descriptor of the folder itself
                if int(entry.name) > 2:
                    os.set_inheritable(int(entry.name), False)


LEAST_FILES: Final = 64
"""What a start without servers and clients uses, and the reserve, and a few clients."""


def require_files() -> None:
    """Raise NoResources where descriptors would run out in the middle of a start, or with the first clients."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < LEAST_FILES:
        raise NoResources(
            f"The system allows this process {hard} open files, and it needs {LEAST_FILES}."
        )


def allow_many() -> None:
    """Raise the soft limit on open descriptors to the hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # the hard limit exceeds what the kernel now allows
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
