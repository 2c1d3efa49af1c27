"""Disks that are too small, and disks that may only be read. Needs mounts."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from faults.databases import content
from faults.inject import execute
from faults.oracle import judge
from faults.power import refusal

if TYPE_CHECKING:
    from faults.runner import Runner
    from faults.scenarios import Scenario

STEPS_KIB = (4, 24, 64, 128, 200, 256, 320, 400, 560, 800)
"""Room left on the disk besides the database: from almost none to enough."""


@contextmanager
def tmpfs(where: Path, kib: int) -> Iterator[Path]:
    where.mkdir(parents=True, exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(where)]
    subprocess.run(["mount", *options], check=True, capture_output=True)
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True)


def unavailable(work: Path) -> str | None:
    """Return why no small disk can be made here, or None."""
    try:
        with tmpfs(work / "probe-disk", 64):
            return None
    except (OSError, subprocess.CalledProcessError) as error:
        return refusal(error)


def full_disk(
    scenario: Scenario, spare_kib: int, work: Path, runner: Runner
) -> tuple[bool, int, list[str]]:
    """Run with this much room; whatever happened, the same start succeeds once there is room."""
    used = sum(
        -(-p.stat().st_size // 4096) * 4 for p in scenario.template.root.rglob("*") if p.is_file()
    )
    folders = sum(4 for p in scenario.template.root.rglob("*") if p.is_dir())
    with tmpfs(work / "small", used + folders + spare_kib) as mounted:
        world = scenario.template.copy_to(mounted / "w")
        done = execute(scenario.command, world, runner)
        subprocess.run(["mount", "-o", "remount,size=64m", str(mounted)], check=True)
        wrong = judge(scenario, world, done.exit_code, work / "aside")
    if done.exit_code not in (0, 9):
        wrong.append(f"exit {done.exit_code} on a full disk: {done.stderr[-300:]}")
    return True, done.exit_code, wrong


def read_only(scenario: Scenario, work: Path, runner: Runner) -> tuple[bool, int, list[str]]:
    """Run on a disk that may only be read: refused, nothing changed, and fine once it may."""
    with tmpfs(work / "readonly", 65536) as mounted:
        world = scenario.template.copy_to(mounted / "w")
        subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
        done = execute(scenario.command, world, runner)
        subprocess.run(["mount", "-o", "remount,rw", str(mounted)], check=True)
        wrong = [] if content(world.database) == scenario.old else ["the database was changed"]
        wrong += judge(scenario, world, done.exit_code, work / "aside")
    if done.exit_code not in (4, 6, 7, 9):
        wrong.append(f"exit {done.exit_code} on a read-only disk: {done.stderr[-300:]}")
    return True, done.exit_code, wrong
