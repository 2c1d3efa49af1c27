"""An event as a person reads it: one line that fits the terminal, sentences on lines of their own."""

from __future__ import annotations

import json
import os
import re
import shutil
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from local_mcp_gateway.log import Sink

WIDTH = 100
"""Of what is no terminal; a terminal says its own."""
EVENT_WIDTH = 20
INDENT = 4
LONGEST_LIST = 80
MOST_NAMED = 2
"""A list that is longer shows its first and its last; all of it is in the log of every other form."""
_HASH = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")
_MARKS = {"debug": ("·", "2"), "info": (" ", "32"), "warning": ("!", "33"), "error": ("✗", "31")}


def console_renderer(stream: Sink) -> Callable[[Any, str, MutableMapping[str, Any]], str]:
    """Return structlog's last processor for a console; colours only on a terminal, never with NO_COLOR."""
    coloured = stream.isatty() and not os.environ.get("NO_COLOR")
    home = str(Path("~").expanduser())

    def paint(code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if coloured else text

    def render(_: Any, __: str, event_dict: MutableMapping[str, Any]) -> str:
        time, level = event_dict.pop("timestamp"), event_dict.pop("level")
        mark, colour = _MARKS[level]
        event = f"{event_dict.pop('event'):<{EVENT_WIDTH}}"
        message, hint, traceback = (
            event_dict.pop(k, None) for k in ("message", "hint", "traceback")
        )
        words = [
            (key, as_word(value, home)) for key, value in event_dict.items() if value is not None
        ]
        room = (shutil.get_terminal_size((WIDTH, 24)).columns if stream.isatty() else WIDTH) - 1
        head = len(f"{time} {mark} {event}")
        lines = wrapped(words, first=room - head, later=room - INDENT)
        shown = [
            " ".join(f"{paint('36', key)}={value}" for key, value in line) for line in lines
        ] or [""]
        top = f"{paint('2', time)} {paint(colour, mark)} {paint('1', event)} {shown[0]}".rstrip()
        below = [
            *shown[1:],
            folded(message, room - INDENT) if message else None,
            folded(f"→ {hint}", room - INDENT, later="  ") if hint else None,
            traceback,
        ]
        return "\n".join([top, *(textwrap.indent(str(t), " " * INDENT) for t in below if t)])

    return render


def folded(text: object, width: int, *, later: str = "") -> str:
    """Break a sentence at blanks into lines of this width; a word that is longer keeps its own."""
    return "\n".join(
        textwrap.fill(
            line,
            width,
            subsequent_indent=later,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in str(text).splitlines()
    )


def wrapped(words: list[tuple[str, str]], *, first: int, later: int) -> list[list[tuple[str, str]]]:
    """Break `key=value` words into lines; a word that is longer than a line has one of its own."""
    lines: list[list[tuple[str, str]]] = []
    room = 0
    for key, value in words:
        length = len(key) + len(value) + 2
        if not lines and length <= first:
            lines.append([(key, value)])
            room = first - length
        elif lines and length <= room:
            lines[-1].append((key, value))
            room -= length
        else:
            if not lines:
                lines.append([])
            lines.append([(key, value)])
            room = later - length
    return lines


def as_word(value: object, home: str) -> str:
    """Show a value: text as it is unless it has blanks, hashes by their beginning, home as `~`."""
    if isinstance(value, str):
        text = _HASH.sub(r"\1…", value).replace(home + "/", "~/")
        plain = text and not any(blank in text for blank in " \n\t=")
        return text if plain else json.dumps(text, ensure_ascii=False)
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        words = [as_word(item, home) for item in value]
        if len(",".join(words)) > LONGEST_LIST and len(words) > MOST_NAMED:
            words = [words[0], f"…(+{len(words) - 2})", words[-1]]
        return ",".join(words) or "–"
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, default=str)
    return f"{value:g}" if isinstance(value, float) else str(value)
