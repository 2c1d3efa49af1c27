"""Tune the process: trim the heap, collect garbage less often, raise the descriptor limit.

glibc keeps the memory of large responses: once the first large block is freed, it places such blocks in
the heap (mallopt(3), M_MMAP_THRESHOLD), which cannot shrink below later allocations. A check costs
20 µs, a trim with nothing to release 0.3 ms.
"""

from __future__ import annotations

import gc
import resource
from contextlib import suppress
from pathlib import Path
from typing import Final

import anyio

EVERY_S: Final = 10.0
SLACK_BYTES: Final = 8 * 1024 * 1024
"""Growth above the smallest size seen that is tolerated."""


async def give_memory_back() -> None:
    """Trim the heap when it has grown, until cancelled; return at once without glibc."""
    import ctypes  # not needed by a start

    try:
        trim, least = ctypes.CDLL(None).malloc_trim, _resident_bytes()
    except (OSError, AttributeError):
        return
    while True:
        await anyio.sleep(EVERY_S)
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


def allow_many() -> None:
    """Raise the soft limit on open descriptors to the hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # the hard limit exceeds what the kernel now allows
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
