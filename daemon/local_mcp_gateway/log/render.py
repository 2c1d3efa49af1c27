"""From an event to a line: structlog's processors, without structlog's global configuration.

Three outputs: a console for people, JSON lines for programs, native entries for the journal. Times are
UTC with microseconds; on the console, where somebody watches, local time of day.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from local_mcp_gateway.log import AT, LEVEL
from local_mcp_gateway.log.console import console_renderer
from local_mcp_gateway.log.events import LEVELS, level_of
from local_mcp_gateway.log.journal import Journal, as_datagram, is_journal
from local_mcp_gateway.log.redact import HIDDEN, is_secret_key, redact

if TYPE_CHECKING:
    from structlog.typing import Processor, WrappedLogger

UTC_MICROSECONDS = "%Y-%m-%dT%H:%M:%S.%fZ"
EventDict = MutableMapping[str, Any]
Write = Callable[..., None]
"""`write(event, fields, level=None)`; the level is the table's unless it comes out of a file."""


def choose_format(format: str, stream: TextIO) -> str:
    """Resolve `auto`: the journal if the stream leads there, a console for a terminal, else JSON."""
    if format != "auto":
        return format
    if is_journal(stream):
        return "journal"
    return "console" if stream.isatty() else "json"


def open_pipeline(format: str, level: str, stream: TextIO) -> Write:
    """Return the function that renders one event; safe to call from any thread."""
    least = LEVELS[level]
    chosen = choose_format(format, stream)
    logger = _journal_logger() if chosen == "journal" else _line_logger(chosen, stream)

    def write(event: str, fields: dict[str, object], known_level: str | None = None) -> None:
        given = fields.pop(LEVEL, None)
        name = str(given) if given else known_level or level_of(event)
        if LEVELS[name] >= least:
            getattr(logger, name)(event, **fields)

    return write


def _line_logger(format: str, stream: TextIO) -> Any:
    structlog = _import_structlog()
    if format == "console":
        tail: list[Processor] = [
            _time_of_day,
            console_renderer(stream),
        ]
    else:
        tail = [
            _utc_time,
            _names_first,
            structlog.processors.JSONRenderer(serializer=_as_json),
        ]
    return _wrap(structlog, _Lines(stream), tail)


def _journal_logger() -> Any:
    structlog = _import_structlog()
    journal = Journal()

    def send(_: WrappedLogger, method: str, event_dict: EventDict) -> EventDict:
        event = event_dict.pop("event")
        event_dict.pop("level", None)
        event_dict.pop(AT, None)  # the journal has a time of its own
        text = " ".join([event, *(f"{key}={value}" for key, value in event_dict.items())])
        if not journal.send(as_datagram(text, method, event, event_dict)) and method in (
            "warning",
            "error",
        ):
            # The journal is gone or full: what someone has to see still goes to stderr.
            sys.stderr.write(text + "\n")
        raise structlog.DropEvent

    return _wrap(structlog, None, [send])


def _wrap(structlog: Any, sink: object, tail: list[Processor]) -> Any:
    return structlog.wrap_logger(
        sink,
        processors=[structlog.processors.add_log_level, _redact, *tail],
        wrapper_class=structlog.make_filtering_bound_logger(0),
        context_class=dict,
        cache_logger_on_first_use=True,
    )


def _redact(_: WrappedLogger, __: str, event_dict: EventDict) -> EventDict:
    return {
        key: HIDDEN if is_secret_key(key) and value is not None else redact(value)
        for key, value in event_dict.items()
    }


def _happened(event_dict: EventDict) -> datetime:
    """Return when the event happened: now, unless it waited in a queue or comes out of a file."""
    return datetime.fromtimestamp(event_dict.pop(AT, None) or time.time(), UTC)


def _time_of_day(_: WrappedLogger, __: str, event_dict: EventDict) -> EventDict:
    happened = _happened(event_dict).astimezone()
    event_dict["timestamp"] = happened.strftime("%H:%M:%S.%f")[:-3]
    return event_dict


def _utc_time(_: WrappedLogger, __: str, event_dict: EventDict) -> EventDict:
    event_dict["timestamp"] = _happened(event_dict).strftime(UTC_MICROSECONDS)
    return event_dict


def _names_first(_: WrappedLogger, __: str, event_dict: EventDict) -> EventDict:
    first = {key: event_dict.pop(key) for key in ("timestamp", "level", "event")}
    return {**first, **event_dict}


def _as_json(value: object, **_: object) -> str:
    # ASCII only: U+2028 would split a line for some readers, and half a surrogate pair of a file name
    # cannot be encoded at all.
    return json.dumps(value, default=str)


class _Lines:
    """A line writer: one write call a line, so that lines of several threads never mix."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def msg(self, message: str) -> None:
        with self._lock:
            try:
                self._stream.write(message + "\n")
                self._stream.flush()
            except (OSError, ValueError):
                # Whoever read our stderr has gone, or the disk that it goes to is full. That is no
                # reason to stop guarding a database.
                return

    debug = info = warning = error = msg


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
