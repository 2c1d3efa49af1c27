"""Format events as console lines, JSON lines or systemd journal entries.

A processor of structlog renders JSON; the console's and the journal's are ours. None of its loggers is used: one
takes as long as the rendering (ADR 35). Times are UTC with microseconds; on the console, the local time of day.
"""

from __future__ import annotations

import json
import os
import re
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TextIO

from local_mcp_gateway.formats import colourless, duration, folded, terminal_width
from local_mcp_gateway.log import AT, LEVEL
from local_mcp_gateway.log.events import LEVEL_OF
from local_mcp_gateway.log.journal import JournalEntry, as_entry, is_journal
from local_mcp_gateway.log.redact import redact_events

if TYPE_CHECKING:
    from structlog.typing import WrappedLogger

EventDict = MutableMapping[str, Any]
Processor = Callable[[Any, str, EventDict], Any]
Formatter = Callable[[Iterable[tuple[str, dict[str, object]]]], list[Any]]
"""Returns the events formatted, each with its level and time among its fields; one that cannot be is left out."""

EVENT_WIDTH = 20
INDENT = 4
SENTENCES = ("message", "excerpt", "hint", "traceback")
"""Fields that are not part of the line: they are printed below it."""
LONGEST_LIST = 80
MOST_NAMED = 2
"""A longer list shows its first and its last item; the other formats have all of it."""
_HASH_LENGTH = 64
_HASH = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")
_MARKS = {"debug": ("·", "2"), "info": (" ", "32"), "warning": ("!", "33"), "error": ("✗", "31")}


def choose_format(format: str, stream: TextIO) -> str:
    """Resolve `auto`: journal if the stream leads there, console on a terminal, else JSON."""
    if format != "auto":
        return format
    if is_journal(stream):
        return "journal"
    return "console" if stream.isatty() else "json"


def formatter(format: str, stream: TextIO | None = None) -> Formatter:
    """Return the function that formats events, with secrets redacted; a console needs its stream."""
    structlog = _import_structlog()
    as_text: Callable[[float], str] = _utc
    render: Processor = _journal_entry
    if format == "json":
        encode = json.JSONEncoder(default=str).encode  # dumps makes one each time
        render = structlog.processors.JSONRenderer(lambda event_dict, **_: encode(event_dict))
    elif format == "console":
        as_text, render = _time_of_day, console_renderer(stream or sys.stderr)

    def format_events(events: Iterable[tuple[str, dict[str, object]]]) -> list[Any]:
        entries = []
        for event, fields in redact_events(events):
            level = str(fields.pop(LEVEL, LEVEL_OF[event]))
            with suppress(Exception):  # one event costs itself, not those after it
                given = fields.pop(AT, None)
                happened = given if isinstance(given, int | float) else time.time()
                known = {"timestamp": as_text(happened), "level": level, "event": event}
                entries.append(render(None, level, {**known, **fields}))
        return entries

    return format_events


def _utc(happened: float) -> str:
    second, microsecond = divmod(round(happened * 1_000_000), 1_000_000)
    return f"{_utc_second(second)}.{microsecond:06}Z"


@lru_cache(4)
def _utc_second(second: int) -> str:
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}"


def _time_of_day(happened: float) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(happened))
    return f"{clock}.{int(happened * 1000) % 1000:03}"


def _journal_entry(_: WrappedLogger, level: str, event_dict: EventDict) -> JournalEntry:
    del event_dict["timestamp"], event_dict["level"]  # the journal adds its own
    event = event_dict.pop("event")
    in_line = {key: value for key, value in event_dict.items() if key not in SENTENCES}
    below = textwrap.indent("\n".join(_sentences(event_dict, None)), " " * INDENT)
    message = "\n".join(filter(None, (" ".join([event, *as_words(in_line)]), below)))
    return as_entry(message, level, event, event_dict)


def console_renderer(stream: TextIO) -> Processor:
    """Return the processor that renders a line for people, with sentences below it.

    There are colours on a terminal only, and none where NO_COLOR or TERM=dumb asks for none.
    """
    coloured = stream.isatty() and not colourless()

    def paint(code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if coloured else text

    def paint_keys(words: list[str]) -> str:
        pairs = (word.partition("=") for word in words)
        return " ".join(f"{paint('36', key)}={value}" for key, _, value in pairs)

    def render(_: WrappedLogger, level: str, event_dict: EventDict) -> str:
        width = terminal_width(stream) - 1
        mark, colour = _MARKS[level]
        del event_dict["level"]
        time, event = event_dict.pop("timestamp"), f"{event_dict.pop('event'):<{EVENT_WIDTH}}"
        said = {key: event_dict.pop(key) for key in SENTENCES if key in event_dict}
        first, *rest = _fill(as_words(event_dict), width, start=len(f"{time} {mark} {event}"))
        head = f"{paint('2', time)} {paint(colour, mark)} {paint('1', event)}"
        lines = [*map(paint_keys, rest), *_sentences(said, width - INDENT)]
        below = [textwrap.indent(text, " " * INDENT) for text in lines]
        return "\n".join([f"{head} {paint_keys(first)}".rstrip(), *below])

    return render


def _sentences(fields: Mapping[str, Any], width: int | None) -> list[str]:
    """Return what is printed below an event for people, wrapped to a width: message, place, hint, traceback."""
    message, excerpt, hint, traceback = (fields.get(key) for key in SENTENCES)
    if width is not None:
        message = folded(message, width) if message else ""
        hint = folded(hint, width, mark="→ ") if hint else ""
    elif hint:
        hint = f"→ {hint}"
    return [str(text) for text in (message, excerpt, hint, traceback) if text]


def as_words(fields: Mapping[str, Any]) -> list[str]:
    """Return `key=value` for each field that has a value; a value is one word, or JSON.

    Milliseconds are given with a unit that fits: `duration_ms` is shown as `duration=1.5s`.
    """
    home = os.environ.get("HOME", "")
    return [
        f"{key.removesuffix('_ms')}={elapsed(value)}"
        if key.endswith("_ms") and isinstance(value, int | float)
        else f"{key}={as_word(value, home)}"
        for key, value in fields.items()
        if value is not None
    ]


def elapsed(milliseconds: float) -> str:
    """Return a duration as one word; below a second to three digits, since starts are short."""
    if milliseconds < 1000:
        return f"{milliseconds:.3g}ms"
    return duration(milliseconds).replace(" ", "")


def as_word(value: object, home: str) -> str:
    """Format a value: text unquoted unless it has blanks, hashes shortened, home as `~`."""
    if isinstance(value, str):
        text = _HASH.sub(r"\1…", value) if len(value) >= _HASH_LENGTH else value
        text = text.replace(f"{home}/", "~/") if home else text
        printable = text.isprintable()
        plain = text and printable and " " not in text and "=" not in text
        return text if plain else json.dumps(text, ensure_ascii=not printable)
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        words = [as_word(item, home) for item in value]
        if len(",".join(words)) > LONGEST_LIST and len(words) > MOST_NAMED:
            words = [words[0], f"…(+{len(words) - 2})", words[-1]]
        return ",".join(words) or "–"
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, default=str)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _fill(words: list[str], width: int, *, start: int) -> list[list[str]]:
    """Wrap a line between words: the first after `start` characters, the others after INDENT."""
    lines: list[list[str]] = [[]]
    used = start
    for word in words:
        used += 1 + len(word)
        if used > width:
            lines.append([])
            used = INDENT + len(word)
        lines[-1].append(word)
    return lines


def _import_structlog() -> Any:
    """Import structlog without letting it import rich; see docs/adr/0002-no-rich.md.

    None in sys.modules makes `import rich` fail at once, which structlog handles; the entry is removed
    afterwards. Delete this when structlog imports rich only where it is used.
    """
    if "structlog" not in sys.modules and "rich" not in sys.modules:
        sys.modules["rich"] = None  # type: ignore[assignment]
        try:
            import structlog
        finally:
            del sys.modules["rich"]
    import structlog

    return structlog
