"""An event as a line of JSON: names first, secrets hidden, time in UTC with microseconds. Pure.

While the gateway serves, each call is such a line, with the same few texts in it: what a text looks like
in JSON, its secrets hidden, is remembered.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from math import isfinite

from local_mcp_gateway.log.redact import HIDDEN, SHORT, is_secret_key, redact, redact_text

FIRST = frozenset({"timestamp", "level", "event"})


def json_line(happened: float, level: str, event: str, fields: Mapping[str, object]) -> str:
    """Return the line without its end; `happened` in seconds since 1970."""
    at = datetime.fromtimestamp(happened, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    rest = [
        f", {_name(key)}: {_value(key, value)}" for key, value in fields.items() if key not in FIRST
    ]
    return f'{{"timestamp": "{at}", "level": "{level}", "event": {_name(event)}{"".join(rest)}}}'


def _value(key: str, value: object) -> str:
    if value is None:
        return "null"
    if is_secret_key(key):
        return _short(HIDDEN)
    if isinstance(value, str):
        return _short(value) if len(value) <= SHORT else _encoded(redact_text(value))
    if type(value) is int or (type(value) is float and isfinite(value)):
        return repr(value)
    return _encoded(redact(value))


@lru_cache(maxsize=1024)
def _short(text: str) -> str:
    return _encoded(redact_text(text))


@lru_cache(maxsize=1024)
def _name(text: str) -> str:
    return _encoded(text)


def _encoded(value: object) -> str:
    # ASCII only: U+2028 would split a line for some readers, and half a surrogate pair of a file name
    # cannot be encoded at all.
    return json.dumps(value, default=str)
