"""Memory that large answers have taken goes back to the system when they are gone.

By itself glibc keeps it: with the first large block that is freed it begins to put such blocks into the
heap (mallopt(3), M_MMAP_THRESHOLD), which cannot shrink below what was allocated after them. A look
costs 20 µs, and to trim 0.3 ms where there is nothing to give back.
"""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Final

import anyio

EVERY_S: Final = 10.0
SLACK_BYTES: Final = 8 * 1024 * 1024
"""How much more than the least ever is let be."""


async def give_memory_back() -> None:
    """Trim the heap from time to time, until cancelled; another C library does without."""
    import ctypes  # noqa: PLC0415  a start does not need it

    try:
        trim, least = ctypes.CDLL(None).malloc_trim, _resident_bytes()
    except (OSError, AttributeError):
        return
    while True:
        await anyio.sleep(EVERY_S)
        now = _resident_bytes()
        least = min(least, now)
        if now > least + SLACK_BYTES:
            trim(0)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
