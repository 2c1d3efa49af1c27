"""From an event to a line: structlog's processors, without structlog's global configuration.

Three outputs: a console for people, JSON lines for programs, native entries for the journal. Times are
UTC with microseconds; on the console, where somebody watches, local time of day.
"""

from __future__ import annotations

import sys
import time
from collections.abc import MutableMapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from local_mcp_gateway.log import AT, LEVEL, Sink
from local_mcp_gateway.log.console import console_renderer
from local_mcp_gateway.log.events import LEVELS, level_of
from local_mcp_gateway.log.journal import Journal, as_datagram, is_journal
from local_mcp_gateway.log.line import json_line
from local_mcp_gateway.log.outputs import Entries, Lines
from local_mcp_gateway.log.redact import HIDDEN, is_secret_key, redact

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from structlog.typing import Processor, WrappedLogger

EventDict = MutableMapping[str, Any]


def choose_format(format: str, stream: Sink) -> str:
    """Resolve `auto`: the journal if the stream leads there, a console for a terminal, else JSON."""
    if format != "auto":
        return format
    if is_journal(stream):
        return "journal"
    return "console" if stream.isatty() else "json"


class Pipeline:
    """The way of events to one output; safe to use from any thread."""

    def __init__(self, format: str, level: str, stream: Sink) -> None:
        self._least = LEVELS[level]
        chosen = choose_format(format, stream)
        self._output = Entries(Journal()) if chosen == "journal" else Lines(stream)
        self._logger = _logger(self._output, _rendering(chosen, stream))

    def write(self, event: str, fields: dict[str, object], known_level: str | None = None) -> None:
        """Render one event; the level is the table's unless it comes out of a file."""
        given = fields.pop(LEVEL, None)
        name = str(given) if given else known_level or level_of(event)
        if LEVELS[name] >= self._least:
            getattr(self._logger, name)(event, **fields)

    def together(self) -> AbstractContextManager[None]:
        """Write the lines that are rendered inside with one call at the end; the journal wants each."""
        return self._output.together()

    @property
    def taking(self) -> bool:
        """Tell whether it is worth telling what was lost."""
        return self._output.taking

    def take_lost(self) -> int:
        """Return how many events were not taken since the last time, and begin to count anew."""
        return self._output.take_lost()


def _rendering(format: str, stream: Sink) -> list[Processor]:
    if format == "journal":
        return [_redact, _entry]
    if format == "console":
        return [_redact, _time_of_day, console_renderer(stream)]
    return [_json]


def _logger(output: Entries | Lines, rendering: list[Processor]) -> Any:
    structlog = _import_structlog()
    logger = structlog.wrap_logger(
        output,
        processors=[structlog.processors.add_log_level, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(0),
        context_class=dict,
    )
    return logger.bind()


def _redact(_: WrappedLogger, __: str, event_dict: EventDict) -> EventDict:
    return {
        key: HIDDEN if is_secret_key(key) and value is not None else redact(value)
        for key, value in event_dict.items()
    }


def _happened(event_dict: EventDict) -> float:
    """Return when the event happened: now, unless it waited in a queue or comes out of a file."""
    return event_dict.pop(AT, None) or time.time()


def _time_of_day(_: WrappedLogger, __: str, event_dict: EventDict) -> EventDict:
    happened = datetime.fromtimestamp(_happened(event_dict)).astimezone()
    event_dict["timestamp"] = happened.strftime("%H:%M:%S.%f")[:-3]
    return event_dict


def _json(_: WrappedLogger, __: str, event_dict: EventDict) -> str:
    happened = _happened(event_dict)
    return json_line(happened, event_dict["level"], event_dict["event"], event_dict)


def _entry(
    _: WrappedLogger, level: str, event_dict: EventDict
) -> tuple[tuple[str, bytes], dict[str, Any]]:
    """Return what `Entries` takes."""
    event = event_dict.pop("event")
    event_dict.pop("level", None)
    event_dict.pop(AT, None)  # the journal has a time of its own
    text = " ".join([event, *(f"{key}={value}" for key, value in event_dict.items())])
    return (text, as_datagram(text, level, event, event_dict)), {}


def _import_structlog() -> Any:
    """Import structlog without letting it import rich.

    structlog.dev and structlog.tracebacks import `rich` if it is installed, for tracebacks that we do
    not use; that takes 130 of 250 ms here. It is not among our dependencies, but a developer's
    environment has it. None in sys.modules makes the import fail at once, which structlog handles; the
    entry is taken out again afterwards. Can go when structlog imports rich lazily.
    """
    if "structlog" not in sys.modules and "rich" not in sys.modules:
        sys.modules["rich"] = None  # type: ignore[assignment]
        try:
            import structlog
        finally:
            del sys.modules["rich"]
    import structlog

    return structlog
