"""Events: what the program says about its own life, one constant name each.

Layers below `service` never hold a logger: they take `emit: Emit = ignore` and call it. Only the
composition root and the command line call `configure`, once, and pass the result on; nothing global
is set, so tests hand in a list's `append`-like function and compare whole events.

This module is imported by everything and so imports nothing heavy; the rendering (structlog) is
loaded at the first event that is written, so a command that only reads never pays for it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from local_mcp_gateway.log.render import Pipeline

Emit = Callable[..., None]
"""`emit("noun.past_verb", key_unit=value, …)`: how layers below `service` report, without a logger."""


class Sink(Protocol):
    """What lines are written to: a stream of text, or a `RotatedFile`."""

    def write(self, text: str, /) -> object:
        """Take a line."""

    def flush(self) -> object:
        """Let go of what was taken."""

    def isatty(self) -> bool:
        """Tell whether somebody watches."""

    def fileno(self) -> int:
        """Return the descriptor behind it. Raises OSError or ValueError if there is none."""


AT = "_at"
"""A field that is never shown: when the event happened, in seconds since 1970, if not now."""
LEVEL = "_level"
"""A field that is never shown: another level than the table's, for one use of an event."""


def ignore(event: str, /, **fields: object) -> None:
    """Report to nobody."""


def tee(*targets: Emit) -> Emit:
    """Return an Emit that reports to each of the targets, in order."""

    def emit(event: str, /, **fields: object) -> None:
        for target in targets:
            target(event, **fields)

    return emit


def configure(format: str, level: str, stream: Sink | None = None) -> Log:
    """Return the Emit that renders events to `stream` (default: stderr), from any thread.

    `format` is auto, console, json or journal; `level` the least level that is written, empty for
    info. Rendering is synchronous: an event has left the process before the next step begins, which
    is what lets a test (or a person) tell from the log in which phase a process was killed.
    """
    return Log(format, level or "info", stream)


class Log:
    """An Emit that renders; see `configure`."""

    def __init__(self, format: str, level: str, stream: Sink | None) -> None:
        self._format, self._level, self._stream = format, level, stream
        self._pipeline: Pipeline | None = None

    def __call__(self, event: str, /, **fields: object) -> None:
        """Write one event."""
        pipeline = self._pipeline
        if pipeline is None:
            from local_mcp_gateway.log.events import LEVELS, level_of

            if LEVELS[str(fields.get(LEVEL) or level_of(event))] < LEVELS[self._level]:
                return  # nothing to write yet, so nothing to load for it
            from local_mcp_gateway.log.render import Pipeline

            stream = self._stream or sys.stderr
            pipeline = self._pipeline = Pipeline(self._format, self._level, stream)
        pipeline.write(event, fields)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write the lines of the events inside with one call at the end."""
        with nullcontext() if self._pipeline is None else self._pipeline.together():
            yield

    @property
    def taking(self) -> bool:
        """Tell whether the output takes anything: what it lost is told to itself."""
        return self._pipeline is None or self._pipeline.taking

    def take_lost(self) -> int:
        """Return how many events the output did not take since the last time."""
        return 0 if self._pipeline is None else self._pipeline.take_lost()
