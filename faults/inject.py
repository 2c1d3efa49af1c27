"""Run a command under strace and make the N-th call of one kind fail, lie or be the last."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from faults.scenarios import Scenario
from faults.world import DEADLINE_S, REPOSITORY, World, environment

SYSCALLS = (
    "write", "pwrite64", "fsync", "fdatasync", "rename", "unlink", "ftruncate", "link", "mkdir",
    "copy_file_range",
)  # fmt: skip
"""Every call by which this program and SQLite change the disk (seen in a full trace)."""
OPENS = "openat"
"""Only for permission lost midway; of all opens only those of the data folder's own files count."""
OPENED = ("data", "data/backups", "data/gateway.db", "data/gateway.db-wal", "data/gateway.db-shm",
          "data/gateway.db-journal", "data/gateway.db.lock")  # fmt: skip
PROGRAM = (sys.executable, "-m", "local_mcp_gateway")


@dataclass(frozen=True, slots=True)
class Point:
    """One fault: in this scenario, at the N-th call of this name, do this."""

    scenario: str
    syscall: str
    number: int
    action: str
    """kill, EIO, ENOSPC, EACCES, lie, torn-head, torn-tail, power"""

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
    trace: str


def strace(output: Path, syscall: str, *more: str) -> tuple[str, ...]:
    """Return the prefix that traces one kind of call.

    With a seccomp filter all other calls run at full speed, but strace 6.1 then never delivers the
    signal of an injection: so kills are run without it, at three times the cost.
    """
    quick = () if any("signal=KILL" in word for word in more) else ("--seccomp-bpf",)
    return ("strace", "-f", *quick, "-q", "-y", "-o", str(output),
            "-e", f"trace={syscall}", *more)  # fmt: skip


def execute(
    scenario: Scenario,
    world: World,
    prefix: tuple[str, ...] = (),
    program: tuple[str, ...] = PROGRAM,
    stop_by: signal.Signals = signal.SIGTERM,
) -> tuple[int, str]:
    """Run the scenario's command; a gateway is stopped by that signal as soon as it is ready."""
    process = subprocess.Popen(
        [*prefix, *program, *world.options, *scenario.command.arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(world),
        cwd=REPOSITORY,
        start_new_session=True,
    )
    lines: list[str] = []
    watchdog = threading.Timer(DEADLINE_S, os.killpg, (process.pid, signal.SIGKILL))
    watchdog.start()
    try:
        assert process.stderr is not None
        pid = 0
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r'"guard.locked".*"pid": (\d+)', line):
                pid = int(found[1])
            if scenario.command.serves and '"service.ready"' in line and pid:
                os.kill(pid, stop_by)
        code = process.wait()
    finally:
        watchdog.cancel()
        process.stderr.close()  # type: ignore[union-attr]
    return code, "".join(lines)


def serve_once(world: World) -> None:
    """Serve until ready and stop: the run without faults."""
    from faults.scenarios import COMMANDS

    command = next(command for command in COMMANDS if command.serves)
    bare = Scenario(command, "", world, "", "", {}, frozenset())
    code, log = execute(bare, world)
    if code != 0:
        raise RuntimeError(f"serve failed with {code}: {log}")


def count_calls(scenario: Scenario, work: Path) -> dict[str, int]:
    """Count the calls of each kind in a run without faults."""
    world = scenario.template.copy_to(work / "count")
    trace = work / "count.trace"
    code, log = execute(scenario, world, strace(trace, ",".join(SYSCALLS)))
    if code != 0:
        raise RuntimeError(f"{scenario.name} under strace failed with {code}: {log}")
    text = trace.read_text()
    counts = {name: len(re.findall(rf"^\d+ +{name}\(", text, re.MULTILINE)) for name in SYSCALLS}
    world = scenario.template.copy_to(work / "count")
    execute(scenario, world, strace(trace, OPENS, *only_data(world)))
    counts[OPENS] = len(re.findall(rf"^\d+ +{OPENS}\(", trace.read_text(), re.MULTILINE))
    return counts


def only_data(world: World) -> tuple[str, ...]:
    """Return the options that leave out every file but the data folder's own."""
    return tuple(word for name in OPENED for word in ("-P", str(world.root / name)))


def inject(scenario: Scenario, point: Point, world: World, work: Path,
           program: tuple[str, ...] = PROGRAM) -> Outcome:  # fmt: skip
    """Run the command with the fault; apply what a torn write left, if that is the fault."""
    trace = work / "trace"
    trace.unlink(missing_ok=True)
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
    prefix = strace(trace, point.syscall, *more, "-e", rule)
    code, log = execute(scenario, world, prefix, program)
    text = trace.read_text() if trace.exists() else ""
    seen = "killed by SIGKILL" in text if "KILL" in action else "(INJECTED)" in text
    if point.action.startswith("torn"):
        seen = seen and tear(text, point)
    return Outcome(code, seen, log, text)


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
