"""Events: what the program says about its own life, one constant name each."""

from __future__ import annotations

from collections.abc import Callable

Emit = Callable[..., None]
"""`emit("noun.past_verb", key_unit=value, …)`: how layers below `service` report, without a logger."""


def ignore(event: str, /, **fields: object) -> None:
    """Report to nobody."""
