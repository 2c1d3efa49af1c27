"""Memory that large answers have taken goes back to the system when they are gone.

By itself glibc keeps it: with the first large block that is freed it begins to put such blocks into the
heap (mallopt(3), M_MMAP_THRESHOLD), which cannot shrink below what was allocated after them. A look
costs 20 µs, and to trim 0.3 ms where there is nothing to give back.
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
"""How much more than the least ever is let be."""


async def give_memory_back() -> None:
    """Trim the heap from time to time, until cancelled; another C library does without."""
    import ctypes  # a start does not need it

    try:
        trim, least = ctypes.CDLL(None).malloc_trim, _resident_bytes()
    except (OSError, AttributeError):
        return
    while True:
        await anyio.sleep(EVERY_S)
        with suppress(OSError):  # without a free descriptor, nothing is seen this time
            now = _resident_bytes()
            least = min(least, now)
            if now > least + SLACK_BYTES:
                trim(0)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


AFTER_OBJECTS = 20_000
"""How many more containers than before have to live until the collector looks. Python's own is 700."""


def collect_rarely() -> None:
    """Leave what stands for good out of every look, and look less often.

    To be called once all is up. With Python's settings the looks took a tenth of the time of calls.
    """
    gc.freeze()
    gc.set_threshold(AFTER_OBJECTS, 20, 20)


def allow_many() -> None:
    """Raise the soft limit of this process to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # a hard limit above what the kernel allows by now
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
