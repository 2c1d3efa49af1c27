"""What was seen so far, the table that is made of it, and the record in which pieces add up."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faults.inject import Point
from faults.plan import ACTIONS, BESIDES
from faults.world import REPOSITORY

if TYPE_CHECKING:
    from faults.inject import Calls

JUDGED = ("daemon/**/*.py", "faults/*", "migrations/**/*")
"""A record is of these files: a point of another program proves nothing about this one."""


@dataclass
class Findings:
    """What became of the points that were run."""

    seen: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(scenario, action) → points whose fault was made."""
    places: set[tuple[str, str, int]] = field(default_factory=set)
    """(scenario, call, number) of those: the same place for every action."""
    unseen: int = 0
    failures: list[str] = field(default_factory=list)
    exits: Counter[tuple[str, int]] = field(default_factory=Counter)

    @property
    def injected(self) -> int:
        """Return the number of distinct points whose fault was made."""
        return sum(n for (_, action), n in self.seen.items() if action not in BESIDES)

    def note(self, point: Point, *, seen: bool, exit_code: int, wrong: list[str]) -> None:
        """Add one point."""
        if seen:
            self.seen[point.scenario, point.action] += 1
            self.exits[point.action, exit_code] += 1
            if point.action not in BESIDES:
                self.places.add((point.scenario, point.syscall, point.number))
        else:
            self.unseen += 1
        self.failures += [f"{point.key}: {sentence}" for sentence in wrong]


class Record:
    """A file of the points that were run on this very program, one a line; each run adds to it.

    It also keeps how many calls each scenario makes, so that every piece is one of the same whole.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.calls: dict[str, Calls] = {}
        self.done: set[Point] = set()

    def read(self, findings: Findings) -> None:
        """Add what was found earlier; begin again if the program is another by now."""
        if self._path is None:
            return
        program = _digest()
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        if not lines or json.loads(lines[0]) != {"program": program}:
            self._path.write_text(json.dumps({"program": program}) + "\n")
            return
        for line in lines[1:]:
            entry = json.loads(line)
            if "calls" in entry:
                self.calls[entry["scenario"]] = entry["calls"]
            else:
                point = Point(**entry.pop("point"))
                self.done.add(point)
                findings.note(point, **entry)

    def count(self, scenario: str, calls: Calls) -> None:
        self.calls[scenario] = calls
        self._add({"scenario": scenario, "calls": calls})

    def add(self, point: Point, *, seen: bool, exit_code: int, wrong: list[str]) -> None:
        self.done.add(point)
        self._add({"point": asdict(point), "seen": seen, "exit_code": exit_code, "wrong": wrong})

    def _add(self, entry: dict[str, Any]) -> None:
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps(entry) + "\n")


def _digest() -> str:
    """Return what tells this program, and this laboratory, from every other."""
    files = sorted({f for part in JUDGED for f in REPOSITORY.glob(part) if f.suffix != ".pyc"})
    total = hashlib.sha256()
    for file in files:
        if file.is_file():
            total.update(f"{file.relative_to(REPOSITORY)}\0{file.stat().st_size}\0".encode())
            total.update(file.read_bytes())
    return total.hexdigest()


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
        f"\n{findings.injected} distinct points whose fault was made"
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
