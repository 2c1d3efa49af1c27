"""Run a command and make the N-th call of one kind fail, lie or be the last."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from faults import vfs

if TYPE_CHECKING:
    from faults.runner import Ended, Runner, Variation
    from faults.scenarios import Command, Scenario
    from faults.syscalls import Answer, Call
    from faults.world import World

SYSCALLS = (
    "write", "pwrite64", "fsync", "fdatasync", "rename", "unlink", "ftruncate", "link", "mkdir",
    "copy_file_range",
)  # fmt: skip
"""Every call by which this program and SQLite change the disk (seen in a full trace)."""
OPENS = "openat"
"""Only for permission lost midway; of all opens only those in the data folder count."""
SECTOR = 512
ERRORS = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC, "EACCES": errno.EACCES}

Calls = Mapping[str, Sequence[int]]
"""The calls that a run without faults makes, by name: the bytes that each was to write, in order."""


@dataclass(frozen=True, slots=True)
class Point:
    """One fault: in this scenario, at the N-th call of this name, do this."""

    scenario: str
    syscall: str
    """Empty when it is done to the whole run."""
    number: int
    action: str
    """One of `plan.ACTIONS`, or of `plan.BESIDES`."""

    @property
    def key(self) -> str:
        place = f"{self.syscall}#{self.number} " if self.syscall else ""
        return f"{self.scenario} {place}{self.action}" + (
            f" {self.number}" if self.number and not self.syscall else ""
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a run."""

    exit_code: int
    seen: bool
    """The fault took place."""
    stderr: str
    to_data: bool = True
    """The call was about a file of the data folder, and not about what the program prints."""


@dataclass
class Injector:
    """Count the calls of a run, and answer the N-th of one kind as the point says."""

    data: Path
    point: Point | None = None
    sizes: dict[str, list[int]] = field(default_factory=lambda: {n: [] for n in (*SYSCALLS, OPENS)})
    """The bytes that each call was to write, by its name, in order."""
    seen: bool = False
    printed: bool = False
    """The fault was met by what the program prints."""

    @property
    def kinds(self) -> Sequence[str]:
        """Return the calls that are to be asked about."""
        return [self.point.syscall] if self.point else (*SYSCALLS, OPENS)

    def answer(self, call: Call) -> Answer:
        """Let every call be made but the one."""
        if call.name == OPENS and not call.path().is_relative_to(self.data):
            return None
        if call.is_no_file():
            return None
        sizes = self.sizes[call.name]
        sizes.append(call.size())
        point = self.point
        if point is None or (point.syscall, point.number) != (call.name, len(sizes)):
            return None
        self.seen = True
        self.printed = call.name == "write" and call.arguments[0] in (1, 2)
        match point.action:
            case "kill" | "power":
                return call.kill()
            case "torn-head" | "torn-tail":
                tear(call, point.action)
                return call.kill()
            case "lie":
                return call.size()
            case error:
                return -ERRORS[error]


def tear(call: Call, action: str) -> None:
    """Write half of what a `pwrite64` that will not be made is to write: its first or its last bytes.

    Sectors are what a disk writes whole; half of a page is eight of them.
    """
    content, offset = call.content(), call.arguments[3]
    half = max(len(content) // 2 // SECTOR * SECTOR, len(content) // 2)
    descriptor = os.open(call.file(), os.O_WRONLY)
    try:
        if action == "torn-head":
            os.pwrite(descriptor, content[:half], offset)
        else:
            os.pwrite(descriptor, content[half:], offset + half)
    finally:
        os.close(descriptor)


def execute(
    command: Command,
    world: World,
    runner: Runner,
    *,
    injector: Injector | None = None,
    variation: Variation = (),
    stop_by: signal.Signals = signal.SIGTERM,
    modules: Path | None = None,
) -> Ended:
    """Run the command; a gateway is stopped by that signal as soon as it is ready."""
    return runner.run(
        world,
        *command.arguments,
        stop_by=stop_by if command.serves else None,
        hold=injector.kinds if injector else (),
        answer=injector.answer if injector else None,
        variation=variation,
        modules=modules,
    )


def count_calls(scenario: Scenario, work: Path, runner: Runner) -> Calls:
    """Note the calls of each kind in runs without faults."""
    world = scenario.template.copy_to(work / "count")
    counted = Injector(world.data)
    done = execute(scenario.command, world, runner, injector=counted)
    if done.exit_code != 0:
        raise RuntimeError(f"{scenario.name} without faults: {done}")
    if vfs.unavailable() is not None:
        return counted.sizes
    trace = work / "count.trace"
    world = scenario.template.copy_to(work / "count")
    below = ("faults.vfs", "install", str(trace), "", "0", "")
    done = execute(scenario.command, world, runner, variation=below)
    if done.exit_code != 0:
        raise RuntimeError(f"{scenario.name} without faults: {done}")
    return counted.sizes | vfs.read_trace(trace)[0]


def inject(
    scenario: Scenario,
    point: Point,
    world: World,
    work: Path,
    runner: Runner,
    variation: Variation = (),
) -> Outcome:
    """Run the command with the fault."""
    if point.syscall in vfs.CALLS:
        trace = work / "trace"
        trace.unlink(missing_ok=True)
        wanted = (point.syscall, str(point.number), point.action)
        below = ("faults.vfs", "install", str(trace), *wanted)
        done = execute(scenario.command, world, runner, variation=below)
        return Outcome(done.exit_code, vfs.read_trace(trace)[1], done.stderr)
    injector = Injector(world.data, point)
    done = execute(scenario.command, world, runner, injector=injector, variation=variation)
    return Outcome(done.exit_code, injector.seen, done.stderr, to_data=not injector.printed)
