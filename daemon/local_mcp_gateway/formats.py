"""Format times, counts and sizes the same way in every sentence, file and `--json` output."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now_ms() -> int:
    """Return the current time in milliseconds since 1970, as the database stores it."""
    return time.time_ns() // 1_000_000


def iso(moment: datetime | None = None, timespec: str = "milliseconds") -> str:
    """Return a time as ISO 8601 UTC; the current time by default."""
    utc = datetime.now(UTC) if moment is None else moment.astimezone(UTC)
    return utc.isoformat(timespec=timespec).replace("+00:00", "Z")


def counted(number: int, noun: str) -> str:
    """Return a count with its noun: "1 statement", "2 statements"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def size(count: float) -> str:
    """Return a number of bytes in a readable unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError


def duration(milliseconds: float) -> str:
    """Return a duration in ms below a second, in seconds above."""
    if milliseconds < 1:
        return "<1 ms"
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"
