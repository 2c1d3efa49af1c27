"""Which points are run: all of them, or a spread of them within a budget."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

from faults.inject import OPENS, Point

KILLS = ("kill",)
ERRORS = ("EIO", "ENOSPC")
TORN = ("torn-head", "torn-tail")
LIES = ("lie",)
POWER = ("power",)
PERMISSION = ("EACCES",)
ACTIONS = (*KILLS, *ERRORS, *LIES, *TORN, *POWER, *PERMISSION)


def points(scenario: str, counts: Mapping[str, int], actions: Sequence[str]) -> Iterator[Point]:
    """Yield every point of a scenario for these actions."""
    for syscall, count in counts.items():
        for number in range(1, count + 1):
            for action in actions:
                if (syscall == OPENS) != (action in PERMISSION):
                    continue
                if action in TORN and syscall != "pwrite64":
                    continue
                if action in LIES and syscall not in ("write", "pwrite64"):
                    continue
                yield Point(scenario, syscall, number, action)


def spread(all_points: Sequence[Point], wanted: int | None, seed: int) -> list[Point]:
    """Return that many points in an order that covers everything early; the same for the same seed.

    Groups (scenario, call, action) take turns, so rare calls such as `rename` are never crowded out.
    """
    chance = random.Random(seed)
    groups: dict[tuple[str, str, str], list[Point]] = {}
    for point in all_points:
        groups.setdefault((point.scenario, point.syscall, point.action), []).append(point)
    for group in groups.values():
        chance.shuffle(group)
    keys = sorted(groups)
    chance.shuffle(keys)
    ordered: list[Point] = []
    while keys:
        for key in list(keys):
            ordered.append(groups[key].pop())
            if not groups[key]:
                keys.remove(key)
    return ordered if wanted is None else ordered[:wanted]
