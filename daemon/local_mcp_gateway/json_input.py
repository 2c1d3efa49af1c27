"""Parse untrusted JSON from a file or a row, raising ValueError for anything wrong with it."""

from __future__ import annotations

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """Return the value. Raises ValueError, also for nesting deeper than Python can handle."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
