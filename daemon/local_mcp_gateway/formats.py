"""Format times, counts and sizes the same way in every sentence, file and `--json` output.

And tell how wide a terminal is, and whether it has colours.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import TextIO

WIDTH = 100
"""Columns of a line where there is no terminal."""
WIDEST = 120
"""Longer lines are hard to read, however wide the terminal is."""


def now_ms() -> int:
    """Return the current time in milliseconds since 1970, as the database stores it."""
    return time.time_ns() // 1_000_000


def iso(moment: datetime | None = None, timespec: str = "milliseconds") -> str:
    """Return a time as ISO 8601 UTC; the current time by default."""
    utc = datetime.now(UTC) if moment is None else moment.astimezone(UTC)
    return utc.isoformat(timespec=timespec).replace("+00:00", "Z")


def second(moment: str) -> str:
    """Return an ISO 8601 time as a person reads it, without the part below a second."""
    return moment[:19].replace("T", " ")


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
    """Return a duration in the units that a person would say."""
    if milliseconds < 1:
        return "<1 ms"
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1000:.1f} s"
    minutes, seconds = divmod(round(milliseconds / 1000), 60)
    return f"{minutes} min {seconds} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def line_width(stream: TextIO) -> int:
    """Return how wide a line of text is: as the terminal behind a stream, but 120 columns at most."""
    return min(WIDEST, terminal_width(stream))


def terminal_width(stream: TextIO) -> int:
    """Return the columns of the terminal behind a stream; 100 where there is none.

    COLUMNS wins, as everywhere. The stream is measured, not the process's stdout, which may be a pipe.
    """
    if not stream.isatty():
        return WIDTH
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given) > 0:
        return int(given)
    try:
        return os.get_terminal_size(stream.fileno()).columns or WIDTH
    except (OSError, ValueError):
        return WIDTH


def colourless() -> bool:
    """Tell whether the environment asks for no colours."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"


def folded(text: object, width: int, *, mark: str = "") -> str:
    """Wrap a sentence at blanks to this width, behind a mark and below its end; a longer word is not broken."""
    import textwrap  # a command that only prints JSON does not need it

    later = " " * len(mark)
    return "\n".join(
        textwrap.fill(
            line,
            width,
            initial_indent=later if number else mark,
            subsequent_indent=later,
            break_long_words=False,
            break_on_hyphens=False,
        )
        or (later if number else mark).rstrip()
        for number, line in enumerate(str(text).splitlines() or [""])
    )
