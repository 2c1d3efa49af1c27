"""Run a command under strace and make the N-th call of one kind fail, lie or be the last."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from faults import vfs
from faults.world import World

if TYPE_CHECKING:
    from faults.scenarios import Command, Scenario
    from faults.warm import Ended, Variation, Warm

SYSCALLS = (
    "write", "pwrite64", "fsync", "fdatasync", "rename", "unlink", "ftruncate", "link", "mkdir",
    "copy_file_range",
)  # fmt: skip
"""Every call by which this program and SQLite change the disk (seen in a full trace)."""
SILENCE_S = 10.0
INJECTED = "(INJECTED)"
"""What strace writes behind a call that it changed."""
OPENS = "openat"
"""Only for permission lost midway; of all opens only those of the data folder's own files count."""
OPENED = ("data", "data/backups", "data/gateway.db", "data/gateway.db-wal", "data/gateway.db-shm",
          "data/gateway.db-journal", "data/gateway.db.lock")  # fmt: skip


Calls = Mapping[str, Sequence[int]]
"""The calls that a run without faults makes, by name: the bytes that each was to write, in order."""


@dataclass(frozen=True, slots=True)
class Point:
    """One fault: in this scenario, at the N-th call of this name, do this."""

    scenario: str
    syscall: str
    number: int
    action: str
    """One of `plan.ACTIONS`."""

    @property
    def key(self) -> str:
        return f"{self.scenario} {self.syscall}#{self.number} {self.action}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a run."""

    exit_code: int
    seen: bool
    """The trace shows that the fault took place."""
    stderr: str
    to_data: bool = True
    """The call was about a file of the data folder, and not about what the program prints."""


def traced(output: Path, syscall: str, *more: str) -> tuple[str, ...]:
    """Return the command that traces one kind of call in a process and its threads, but for its pid."""
    return ("strace", "-f", "-y", "-o", str(output), "-e", f"trace={syscall}", *more, "-p")


def execute(
    command: Command,
    world: World,
    warm: Warm,
    *,
    tracer: tuple[str, ...] = (),
    variation: Variation = (),
    stop_by: signal.Signals = signal.SIGTERM,
    modules: Path | None = None,
) -> Ended:
    """Run the command; a gateway is stopped by that signal as soon as it is ready.

    Also when it is silent for long: a fault may have taken the very line that says it.
    """
    silence: threading.Timer | None = None

    def stop(pid: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, stop_by)

    def hear(pid: int, line: str = "") -> None:
        nonlocal silence
        if silence is not None:
            silence.cancel()
        if command.serves and '"service.ready"' in line:
            stop(pid)
        elif command.serves:
            silence = threading.Timer(SILENCE_S, stop, (pid,))
            silence.start()

    def begin(pid: int) -> AbstractContextManager[None]:
        hear(pid)
        return attached(tracer, pid) if tracer else nullcontext()

    try:
        return warm.run(
            world, *command.arguments,
            tracer=begin, hear=hear, variation=variation, modules=modules,
        )  # fmt: skip
    finally:
        if silence is not None:
            silence.cancel()


def unavailable() -> str | None:
    """Return why strace cannot be attached to a process here, or None."""
    with subprocess.Popen(["sleep", "60"]) as idle:
        try:
            with attached(traced(Path(os.devnull), "none"), idle.pid):
                idle.kill()
        except (OSError, RuntimeError) as error:
            return str(error)
        finally:
            idle.kill()
    return None


@contextmanager
def attached(tracer: tuple[str, ...], pid: int) -> Iterator[None]:
    """Attach strace, and wait at the end until it has written its trace."""
    with subprocess.Popen([*tracer, str(pid)], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        if "attached" not in said:
            os.kill(pid, signal.SIGKILL)
            raise RuntimeError(f"strace cannot attach: {said}")
        # It tells of every thread: what it says has to be read, or it would stop.
        reader = threading.Thread(target=process.stderr.read)
        reader.start()
        yield
        process.wait()
        reader.join()


def count_calls(scenario: Scenario, work: Path, warm: Warm) -> Calls:
    """Note the calls of each kind in runs without faults."""
    trace = work / "count.trace"

    def run(tracer: tuple[str, ...] = (), variation: Variation = ()) -> None:
        trace.unlink(missing_ok=True)
        world = scenario.template.copy_to(work / "count")
        done = execute(scenario.command, world, warm, tracer=tracer, variation=variation)
        if done.exit_code != 0:
            raise RuntimeError(f"{scenario.name} without faults: {done}")

    run(traced(trace, ",".join(SYSCALLS)))
    found = {name: sizes_of(name, trace.read_text()) for name in SYSCALLS}
    run(traced(trace, OPENS, *only_data(World(work / "count"))))
    found[OPENS] = sizes_of(OPENS, trace.read_text())
    if vfs.unavailable() is None:
        run(variation=("faults.vfs", "install", str(trace), "", "0", ""))
        found |= vfs.read_trace(trace)[0]
    return found


def sizes_of(name: str, trace: str) -> list[int]:
    """Return how many bytes each such call was to write, as far as the trace says; 0 for the others."""
    calls = re.findall(rf"^\d+ +{name}\((.*)", trace, re.MULTILINE)
    sizes = (re.search(r'"[.]*, (\d+), \d+(?:\)| <unfinished)', call) for call in calls)
    return [int(size[1]) if size else 0 for size in sizes]


def only_data(world: World) -> tuple[str, ...]:
    """Return the options that leave out every file but the data folder's own."""
    return tuple(word for name in OPENED for word in ("-P", str(world.root / name)))


def inject(
    scenario: Scenario,
    point: Point,
    world: World,
    work: Path,
    warm: Warm,
    variation: Variation = (),
) -> Outcome:
    """Run the command with the fault; apply what a torn write left, if that is the fault."""
    trace = work / "trace"
    trace.unlink(missing_ok=True)
    if point.syscall in vfs.CALLS:
        below = (
            "faults.vfs",
            "install",
            str(trace),
            point.syscall,
            str(point.number),
            point.action,
        )
        done = execute(scenario.command, world, warm, variation=below)
        return Outcome(done.exit_code, vfs.read_trace(trace)[1], done.stderr)
    more: tuple[str, ...] = ()
    match point.action:
        case "kill" | "power":
            action = "signal=KILL"
        case "torn-head" | "torn-tail":
            action = "signal=KILL"
            more = ("-xx", "-s", "200000")
        case "lie":
            action = "retval=4096"
        case error:
            action = f"error={error}"
    if point.syscall == OPENS:
        more = only_data(world)
    rule = f"inject={point.syscall}:{action}:when={point.number}"
    tracer = traced(trace, point.syscall, *more, "-e", rule)
    done = execute(scenario.command, world, warm, tracer=tracer, variation=variation)
    text = trace.read_text() if trace.exists() else ""
    seen = "killed by SIGKILL" in text if "KILL" in action else INJECTED in text
    if point.action.startswith("torn"):
        seen = seen and tear(text, point)
    printed = re.search(rf"^\d+ +write\([12]<[^>]*>.*{re.escape(INJECTED)}", text, re.MULTILINE)
    return Outcome(done.exit_code, seen, done.stderr, to_data=printed is None)


def tear(trace: str, point: Point) -> bool:
    """Write half of what the killed `pwrite64` would have written: its first or its last bytes.

    The call was stopped before it ran, so the file holds none of it. Sectors are what a disk writes
    whole; half of a page is eight of them.
    """
    calls = re.findall(r'^\d+ +pwrite64\(\d+<([^>]*)>, "((?:\\x[0-9a-f]{2})*)", (\d+), (\d+)',
                       trace, re.MULTILINE)  # fmt: skip
    if len(calls) < point.number:
        return False
    path, escaped, size, offset = calls[point.number - 1]
    content = bytes.fromhex(escaped.replace("\\x", ""))
    if len(content) != int(size) or len(content) < 512:
        return False
    half = max(len(content) // 2 // 512 * 512, len(content) // 2)
    name = re.sub(r"\\x([0-9a-f]{2})", lambda m: chr(int(m[1], 16)), path).removesuffix(
        " (deleted)"
    )
    if not Path(name).exists():
        return False
    descriptor = os.open(name, os.O_WRONLY)
    try:
        if point.action == "torn-head":
            os.pwrite(descriptor, content[:half], int(offset))
        else:
            os.pwrite(descriptor, content[half:], int(offset) + half)
    finally:
        os.close(descriptor)
    return True
