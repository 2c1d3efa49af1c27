"""Events: what the program says about its own life, one constant name each.

Layers below `service` never hold a logger: they take `emit: Emit = ignore` and call it. Only the
composition root and the command line call `configure`, once, and pass the result on; nothing global
is set, so tests hand in a list's `append`-like function and compare whole events.

This module is imported by everything and so imports nothing heavy; the rendering (structlog) is
loaded at the first event that is written, so a command that only reads never pays for it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TextIO

Emit = Callable[..., None]
"""`emit("noun.past_verb", key_unit=value, …)`: how layers below `service` report, without a logger."""

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


def configure(format: str, level: str, stream: TextIO | None = None) -> Emit:
    """Return the Emit that renders events to `stream` (default: stderr), from any thread.

    `format` is auto, console, json or journal; `level` the least level that is written, empty for
    info. Rendering is synchronous: an event has left the process before the next step begins, which
    is what lets a test (or a person) tell from the log in which phase a process was killed.
    """
    pipeline: Callable[..., None] | None = None

    def emit(event: str, /, **fields: object) -> None:
        nonlocal pipeline
        if pipeline is None:
            from local_mcp_gateway.log.events import LEVELS, level_of

            if LEVELS[str(fields.get(LEVEL) or level_of(event))] < LEVELS[level or "info"]:
                return  # nothing to write yet, so nothing to load for it
            from local_mcp_gateway.log.render import open_pipeline

            pipeline = open_pipeline(format, level or "info", stream or sys.stderr)
        pipeline(event, fields)

    return emit
