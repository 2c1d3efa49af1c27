"""Values that are known to be secret, however they look: see ADR 37.

The set belongs to the process, as its log does. `learn` a value before somebody gets it who may print
it; every text that is redacted is without it from then on.
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
"""Characters that a known value has at least: nobody can keep `1` or `yes` to themselves."""
PART: Final = 8
"""Characters from which a known value is hidden inside a word, and a part of it alone."""


class _Known:
    """The values that are known to be secret, longest first. Safe to use from any thread."""

    def __init__(self) -> None:
        self.values: tuple[str, ...] = ()
        self.forget: list[Callable[[], None]] = []
        """What to call when there is a new one: texts that are remembered may hold it."""
        self._lock = threading.Lock()

    def add(self, values: Iterable[str]) -> None:
        """Take more of them."""
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
    """Yield a value as it may be printed: whole, its lines, what stands after `Bearer`, quoted."""
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
