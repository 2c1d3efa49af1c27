"""Parse untrusted JSON from a file or a row, raising ValueError for anything wrong with it."""

from __future__ import annotations

import json
import re
from typing import Any, Final

_COMMENT: Final = r"(?>//[^\n]*+|/\*.*?\*/)"
_LEFT_OUT: Final = re.compile(
    rf'("(?:[^"\\]|\\.)*+")|{_COMMENT}|,(?=(?:\s|{_COMMENT})*+[}}\]])', re.DOTALL
)
"""Comments, and commas behind the last item."""


def parse_json(text: str | bytes) -> Any:
    """Return the value. Raises ValueError, also for nesting deeper than Python can handle."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def parse_jsonc(text: str) -> Any:
    """Return the value of JSON that may have comments and trailing commas. Raises ValueError."""
    try:
        return parse_json(text)
    except json.JSONDecodeError:
        return parse_json(_LEFT_OUT.sub(_blank, text))


def _blank(match: re.Match[str]) -> str:
    """Keep a string; replace a comment or a comma by spaces, so that errors name the right place."""
    return match.group(1) or re.sub(r"[^\n]", " ", match.group())
