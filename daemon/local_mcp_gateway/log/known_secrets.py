"""Secret values to redact wherever they appear in text: see ADR 37.

The set belongs to the process, as its log does. Call `learn` before a value reaches anything that may
print it; every text that is redacted from then on is without it.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Final
from urllib.parse import quote

HIDDEN: Final = "[redacted]"
SHORTEST: Final = 4
"""Minimum length of a known value: `1` or `yes` cannot be redacted everywhere."""
PART: Final = 8
"""Minimum length at which a known value is also redacted inside a word, and a part of it alone."""


class _Known:
    """The known secret values, longest first. Safe to use from any thread."""

    def __init__(self) -> None:
        self.values: tuple[str, ...] = ()
        self.forget: list[Callable[[], None]] = []
        """Called when there is a new value: cached texts may contain it."""
        self._lock = threading.Lock()

    def add(self, values: Iterable[str]) -> None:
        """Add values."""
        with self._lock:
            found = {form for value in values for form in _forms(value)}
            if not found.issubset(self.values):
                self.values = tuple(sorted(found.union(self.values), key=len, reverse=True))
                for forget in self.forget:
                    forget()

    def hide(self, text: str) -> str:
        """Return the text without them."""
        for value in self.values:
            if value not in text:
                continue
            if len(value) >= PART:
                text = text.replace(value, HIDDEN)
            else:
                text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", HIDDEN, text)
        return text


def _forms(value: str) -> Iterator[str]:
    """Yield the forms in which a value may be printed: whole, by line, what follows `Bearer`, quoted."""
    scheme, _, credentials = value.strip().partition(" ")
    parts = [
        *value.splitlines(),
        credentials if scheme.isalpha() and " " not in credentials else "",
    ]
    for part in (value.strip(), *(part.strip() for part in parts if len(part.strip()) >= PART)):
        if len(part) >= SHORTEST:
            yield part
            yield json.dumps(part)[1:-1]
            yield json.dumps(part, ensure_ascii=False)[1:-1]
            yield quote(part.encode("utf-8", "surrogatepass"), safe="")


_KNOWN: Final = _Known()
on_learned: Final = _KNOWN.forget
learn: Final = _KNOWN.add
hide: Final = _KNOWN.hide
