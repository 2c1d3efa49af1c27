"""The outcome of one check of `doctor`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check."""

    check: str
    state: Literal["ok", "note", "problem"]
    message: str
    hint: str = ""

    def as_json(self) -> dict[str, str]:
        """Return the finding as `doctor --json` prints it."""
        return asdict(self)
