"""Which points are run: all of them, or a spread of them within a budget."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from faults import disks, vfs
from faults.inject import OPENS, Calls, Point

KILLS = ("kill",)
ERRORS = ("EIO", "ENOSPC")
TORN = ("torn-head", "torn-tail")
LIES = ("lie",)
POWER = ("power",)
PERMISSION = ("EACCES",)
ACTIONS = (*KILLS, *ERRORS, *LIES, *TORN, *POWER, *PERMISSION, *vfs.TORN, *vfs.ERRORS)

BESIDES = ("cut after", "clock back", "full disk", "read-only disk")
"""What is not done at a call but to a whole run."""


def points_besides(scenario: str, actions: Sequence[str]) -> Iterator[Point]:
    """Yield what is done to whole runs of a scenario. The number of a full disk is its room in KiB."""
    for action in actions:
        for number in disks.STEPS_KIB if action == "full disk" else (0,):
            yield Point(scenario, "", number, action)


def points(scenario: str, calls: Calls, actions: Sequence[str]) -> Iterator[Point]:
    """Yield every point of a scenario for these actions."""
    for call, sizes in calls.items():
        for number, size in enumerate(sizes, 1):
            for action in actions:
                if fits(call, size, action):
                    yield Point(scenario, call, number, action)


def fits(call: str, size: int, action: str) -> bool:
    """Tell whether this can happen to such a call; what is within one sector is written whole."""
    if action in vfs.TORN:
        return call == "xWrite" and size > vfs.SECTOR
    if action in vfs.ERRORS:
        return call in vfs.CALLS and (action == "vfs-IOERR" or call == "xWrite")
    if call in vfs.CALLS:
        return False
    if action in PERMISSION:
        return call == OPENS
    if action in TORN:
        return call == "pwrite64" and size > vfs.SECTOR
    if action in LIES:
        return call in ("write", "pwrite64")
    return call != OPENS


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
