"""Structured logging: every layer reports named events to one configured output.

Layers below `service` never hold a logger: they take `emit: Emit = ignore` and call it. Only the
composition root and the command line call `configure`, once, and pass the result on. No global state is
set, so a test passes a function of its own and compares whole events.

Everything imports this module, so it imports nothing heavy: structlog is loaded for the first event
that is written, and a command that only reads never pays for it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TextIO

from local_mcp_gateway.log.events import LEVELS, level_of

if TYPE_CHECKING:
    from pathlib import Path

    from local_mcp_gateway.log.formatters import Formatter
    from local_mcp_gateway.log.writers import Writer

Emit = Callable[..., None]
"""`emit("noun.past_verb", key_unit=value, …)`: how a layer below `service` reports."""

AT = "_at"
"""A hidden field: when the event happened, in seconds since 1970, if not now."""
LEVEL = "_level"
"""A hidden field: the level of this one event, instead of the table's."""


def ignore(event: str, /, **fields: object) -> None:
    """Discard the event."""


def tee(*targets: Emit) -> Emit:
    """Return an Emit that reports to each of the targets, in order."""

    def emit(event: str, /, **fields: object) -> None:
        for target in targets:
            target(event, **fields)

    return emit


def configure(format: str, level: str, stream: TextIO | None = None) -> Log:
    """Return the Emit that writes events to `stream` (default: stderr), from any thread.

    `format` is auto, console, json or journal; `level` is the lowest that is written, empty for info.
    An event has left the process when the call returns, so the log shows in which phase a process was
    killed.
    """
    return Log(level, lambda: _open_stream(format, stream or sys.stderr))


def log_to_file(path: Path, level: str, *, most_bytes: int = 4 * 1024 * 1024) -> Log:
    """Return the Emit that appends JSON lines to a file; a full one is renamed to `.1`."""
    return Log(level, lambda: _open_file(path, most_bytes))


class Log:
    """An Emit that formats events and writes them; see `configure`."""

    def __init__(self, level: str, open_output: Callable[[], tuple[Formatter, Writer]]) -> None:
        self._least = LEVELS[level or "info"]
        self._open_output = open_output
        self._output: tuple[Formatter, Writer] | None = None
        self.lost = 0
        """Events that could not be formatted or written, and are not reported yet."""

    def __call__(self, event: str, /, **fields: object) -> None:
        """Write one event."""
        if self.wants(event, fields):
            self.write([(event, fields)])

    def wants(self, event: str, fields: dict[str, object]) -> bool:
        """Return whether events of this name are written."""
        level = fields.get(LEVEL)
        return LEVELS[str(level) if level else level_of(event)] >= self._least

    def write(self, events: Iterable[tuple[str, dict[str, object]]]) -> bool:
        """Write events of any level with one call. Return False when the output accepted none of them."""
        if self._output is None:
            self._output = self._open_output()
        format_event, writer = self._output
        entries, refused = [], 0
        for event, fields in events:
            try:
                entries.append(format_event(event, fields))
            except Exception:  # noqa: BLE001  one event costs itself, not those after it
                self.lost += 1
        if entries:
            refused = writer.write(entries)
            self.lost += refused
        return not entries or refused < len(entries)


def _open_stream(format: str, stream: TextIO) -> tuple[Formatter, Writer]:
    from local_mcp_gateway.log.formatters import choose_format, formatter
    from local_mcp_gateway.log.journal import Journal
    from local_mcp_gateway.log.writers import JournalWriter, StreamWriter

    chosen = choose_format(format, stream)
    writer = JournalWriter(Journal()) if chosen == "journal" else StreamWriter(stream)
    return formatter(chosen, stream), writer


def _open_file(path: Path, most_bytes: int) -> tuple[Formatter, Writer]:
    from local_mcp_gateway.log.formatters import formatter
    from local_mcp_gateway.log.writers import RotatedFile

    return formatter("json"), RotatedFile(path, most_bytes=most_bytes)
