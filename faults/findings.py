"""What a run has seen so far, and the table that is made of it."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from faults.plan import ACTIONS

if TYPE_CHECKING:
    from faults.inject import Point

BESIDES = ("cut after", "clock back", "full disk", "read-only disk")
"""What is not done at a call but to a whole run."""


@dataclass
class Findings:
    """Filled by several threads, each under `lock`."""

    seen: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(scenario, action) → points whose fault is in the trace."""
    places: set[tuple[str, str, int]] = field(default_factory=set)
    """(scenario, call, number) of those: the same place for every action."""
    unseen: int = 0
    failures: list[str] = field(default_factory=list)
    exits: Counter[tuple[str, int]] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def injected(self) -> int:
        """Return the number of distinct points whose injection is in the trace."""
        return sum(n for (_, action), n in self.seen.items() if action not in BESIDES)

    def note(self, point: Point, *, seen: bool, exit_code: int, wrong: list[str]) -> None:
        """Add one point; the caller holds the lock."""
        if seen:
            self.seen[point.scenario, point.action] += 1
            self.places.add((point.scenario, point.syscall, point.number))
            self.exits[point.action, exit_code] += 1
        else:
            self.unseen += 1
        self.failures += [f"{point.key}: {sentence}" for sentence in wrong]


def show(findings: Findings, caught: dict[str, str], spent_s: float) -> None:
    """Print the table: scenario by action, points seen."""
    used = [a for a in (*ACTIONS, *BESIDES) if any(key[1] == a for key in findings.seen)]
    print("\n| command / journal mode | " + " | ".join(used) + " |")
    print("|---|" + "---:|" * len(used))
    for name in sorted({key[0] for key in findings.seen}):
        print(f"| {name} | " + " | ".join(str(findings.seen[name, a]) for a in used) + " |")
    totals = [sum(n for key, n in findings.seen.items() if key[1] == a) for a in used]
    print("| together | " + " | ".join(map(str, totals)) + " |")
    print(
        f"\n{findings.injected} distinct points with their injection in the trace"
        f" (at {len(findings.places)} places: command, journal mode, call, N),"
        f" {sum(findings.seen.values()) - findings.injected} runs besides,"
        f" {len(findings.failures)} failures, {findings.unseen} not reached, {spent_s:.0f} s"
    )
    for variation, finding in caught.items():
        print(f"broken guard {variation}: {'caught: ' + finding if finding else 'NOT CAUGHT'}")
    for failure in findings.failures[:50]:
        print(f"FAILED {failure}")


def as_json(findings: Findings, caught: dict[str, str]) -> dict[str, object]:
    return {
        "points": findings.injected,
        "places": len(findings.places),
        "unseen": findings.unseen,
        "failures": findings.failures,
        "seen": {f"{name} {action}": n for (name, action), n in sorted(findings.seen.items())},
        "exits": {f"{action} {code}": n for (action, code), n in sorted(findings.exits.items())},
        "broken": caught,
    }
