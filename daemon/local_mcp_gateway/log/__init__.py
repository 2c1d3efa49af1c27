"""Structured logging: every layer reports named events to one configured output.

Layers below `service` never hold a logger: they take `emit: Emit = ignore` and call it. Only the
composition root and the command line call `configure`, once, and pass the result on. No global state is
set, so a test passes a function of its own and compares whole events.

Everything imports this package, so it imports nothing heavy: structlog is loaded for the first event
that is written, and a command that only reads never pays for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeGuard

from local_mcp_gateway.lazy import exports

if TYPE_CHECKING:
    from local_mcp_gateway.log.events import EVENTS, LEVEL_OF, LEVELS
    from local_mcp_gateway.log.journal import COUNTED_APART, IDENTIFIER, is_journal
    from local_mcp_gateway.log.redact import (
        HIDDEN,
        SHORT,
        beginning,
        is_secret_key,
        learn,
        redact_arguments,
        redact_short,
        redact_text,
        redact_url,
        redact_value,
        secrets_in,
        secrets_in_url,
    )
    from local_mcp_gateway.log.throttle import Throttle
    from local_mcp_gateway.log.writers import BackgroundWriter, Log, configure, log_to_file, rotated
else:
    __getattr__ = exports(
        __name__,
        events=("EVENTS", "LEVELS", "LEVEL_OF"),
        journal=("COUNTED_APART", "IDENTIFIER", "is_journal"),
        redact=(
            "HIDDEN",
            "SHORT",
            "beginning",
            "is_secret_key",
            "learn",
            "redact_arguments",
            "redact_short",
            "redact_text",
            "redact_url",
            "redact_value",
            "secrets_in",
            "secrets_in_url",
        ),
        throttle=("Throttle",),
        writers=("BackgroundWriter", "Log", "configure", "log_to_file", "rotated"),
    )

__all__ = [
    "AT",
    "COUNTED_APART",
    "EVENTS",
    "HIDDEN",
    "IDENTIFIER",
    "LEVEL",
    "LEVELS",
    "LEVEL_OF",
    "SHORT",
    "BackgroundWriter",
    "Emit",
    "Log",
    "Throttle",
    "beginning",
    "configure",
    "ignore",
    "is_journal",
    "is_secret_key",
    "learn",
    "log_to_file",
    "redact_arguments",
    "redact_short",
    "redact_text",
    "redact_url",
    "redact_value",
    "rotated",
    "secrets_in",
    "secrets_in_url",
    "tee",
]

Emit = Callable[..., None]
"""`emit("noun.past_verb", key_unit=value, …)`: how a layer below `service` reports."""

AT = "_at"
"""A hidden field: when the event happened, in seconds since 1970, if not now."""
LEVEL = "_level"
"""A hidden field: the level of this one event, instead of the table's."""


def ignore(event: str, /, **fields: object) -> None:
    """Discard the event."""


def tee(*targets: Emit) -> Emit:
    """Return an Emit that reports to each of the targets, in order; those of another one are its own."""
    found: list[Emit] = []
    for target in targets:
        found += target.args[0] if _is_tee(target) else [target]
    return partial(_emit_to, found)


def _is_tee(target: Emit) -> TypeGuard[partial[None]]:
    return isinstance(target, partial) and target.func is _emit_to


def _emit_to(targets: Sequence[Emit], event: str, /, **fields: object) -> None:
    for target in targets:
        target(event, **fields)
