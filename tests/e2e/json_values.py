"""What a test of a JSON output expects where the exact value is another one at each run."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Like:
    """Equals every text that the pattern matches as a whole."""

    pattern: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and re.fullmatch(self.pattern, other) is not None

    def __hash__(self) -> int:
        return hash(self.pattern)


class AboveZero:
    """Equals every number above zero."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int | float) and other is not True and other > 0

    def __hash__(self) -> int:
        return 1

    def __repr__(self) -> str:
        return "ABOVE_ZERO"


ABOVE_ZERO = AboveZero()
TIME = Like(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
DIGEST = Like("[0-9a-f]{64}")
