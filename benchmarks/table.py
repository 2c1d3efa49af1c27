"""What a benchmark hands back, and how it is shown."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Size(StrEnum):
    """How long a benchmark may take: seconds, a minute, or what it needs."""

    QUICK = "quick"
    SHORT = "short"
    LONG = "long"


@dataclass(frozen=True, slots=True)
class Row:
    """One measured number: `value` in `unit` (× for a ratio), and the bound it should keep."""

    what: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None
    note: str = ""

    @property
    def holds(self) -> bool | None:
        """Tell whether the bound is kept; None without a bound."""
        if self.at_most is not None:
            return self.value <= self.at_most
        if self.at_least is not None:
            return self.value >= self.at_least
        return None

    @property
    def target(self) -> str:
        """Return the bound as text."""
        if self.at_most is not None:
            return f"≤ {self.at_most:g}"
        if self.at_least is not None:
            return f"≥ {self.at_least:g}"
        return ""


def render(rows: Sequence[Row]) -> str:
    """Return the rows as a table of plain text."""
    marks = {True: "holds", False: "MISSED", None: ""}
    cells = [("what", "measured", "target", "", "note")]
    cells += [
        (row.what, f"{row.value:,.2f} {row.unit}", row.target, marks[row.holds], row.note)
        for row in rows
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    return "\n".join(
        "  ".join(
            text.rjust(width) if column == 1 else text.ljust(width)
            for column, (text, width) in enumerate(zip(line, [*widths, 0], strict=True))
        ).rstrip()
        for line in cells
    )
