"""The run itself: scenarios prepared, points worked through by a few threads, findings collected."""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from faults import power
from faults.inject import PROGRAM, Point, execute, inject
from faults.oracle import backups_wrong, judge
from faults.world import World, run

if TYPE_CHECKING:
    from faults.scenarios import Scenario


LEAST_POINTS = 60
"""As many are run however small the budget is."""


@dataclass
class Findings:
    """What a run has seen so far; filled by several threads."""

    seen: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(scenario, action) → points whose fault is in the trace."""
    unseen: int = 0
    failures: list[str] = field(default_factory=list)
    exits: Counter[tuple[str, int]] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def total(self) -> int:
        return sum(self.seen.values())


class Worker:
    """One thread's own folders (and its own disk for power cuts)."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.disk: power.Disk | None = None
        self.stack = ExitStack()
        work.mkdir(parents=True, exist_ok=True)

    def disk_ready(self) -> power.Disk:
        if self.disk is None:
            self.disk = self.stack.enter_context(power.Disk(self.work / "disk"))
        return self.disk


def run_point(
    scenario: Scenario, point: Point, worker: Worker, program: tuple[str, ...] = PROGRAM
) -> tuple[bool, int, list[str]]:
    """Run one point in fresh folders; return whether the fault was seen, the exit code, what is wrong."""
    if point.action == "power":
        disk = worker.disk_ready()
        world = scenario.template.copy_to(disk.mount_point / "w")
        disk.settle()
        outcome = inject(scenario, point, world, worker.work, program)
        disk.cut()
    else:
        world = scenario.template.copy_to(worker.work / "w")
        outcome = inject(scenario, point, world, worker.work, program)
    if not outcome.seen and point.action != "power":
        return False, outcome.exit_code, []
    killed = outcome.exit_code < 0
    if point.action == "lie" and not killed:
        wrong = judge_lie(scenario, world, outcome.exit_code, worker.work / "aside")
    else:
        wrong = judge(scenario, world, outcome.exit_code, worker.work / "aside")
    if not killed and not 0 <= outcome.exit_code <= 9:
        wrong.append(f"exit {outcome.exit_code}, which is no code of the contract")
    if outcome.exit_code == 1 and point.syscall != "write":
        wrong.append(f"exit 1 (unexpected): {outcome.stderr[-300:]}")
    return outcome.seen, outcome.exit_code, wrong


def cut_after_success(scenario: Scenario, worker: Worker) -> list[str]:
    """Cut the power right after exit 0, or after READY: what was reported as done is there."""
    disk = worker.disk_ready()
    world = scenario.template.copy_to(disk.mount_point / "w")
    disk.settle()
    code, log = execute(scenario, world, stop_by=signal.SIGKILL)
    disk.cut()
    ready = scenario.command.serves and '"service.ready"' in log
    if code != 0 and not ready:
        return [f"exit {code} without any fault: {log[-300:]}"]
    return judge(scenario, world, 0, worker.work / "aside")


def judge_lie(scenario: Scenario, world: World, exit_code: int, aside: Path) -> list[str]:
    """After a write that only claimed to have happened: fine, or said so and a good backup is there."""
    wrong = judge(scenario, world, exit_code, aside)
    if wrong and exit_code in (5, 6, 9):
        return backups_wrong(world) or repaired(world)
    return wrong


def repaired(world: World) -> list[str]:
    """Restore the newest backup, as the refusal says, and start."""
    done = run(world, "db", "restore", "latest", "--yes")
    if done.returncode != 0:
        return [f"the damage was told, but the restore fails: {done.stderr[-300:]}"]
    done = run(world, "db", "migrate")
    return (
        [] if done.returncode == 0 else [f"after the restore the start fails: {done.stderr[-300:]}"]
    )


def work_through(
    scenarios: dict[str, Scenario],
    chosen: Sequence[Point],
    work: Path,
    *,
    jobs: int,
    budget_s: float | None,
    tell: Callable[[str], None],
    program: tuple[str, ...] = PROGRAM,
    until_failure: bool = False,
) -> Findings:
    """Run the points with `jobs` threads until they are done or the budget is spent."""
    findings = Findings()
    queue = iter(chosen)
    end = None if budget_s is None else time.monotonic() + budget_s
    with ExitStack() as stack, ThreadPoolExecutor(jobs) as pool:
        workers = [Worker(work / f"worker-{n}") for n in range(jobs)]
        for worker in workers:
            stack.enter_context(worker.stack)

        def drain(worker: Worker) -> None:
            for point in taken(queue, findings.lock):
                over = end is not None and time.monotonic() > end
                if over and findings.total >= LEAST_POINTS:
                    return
                if until_failure and findings.failures:
                    return
                scenario = scenarios[point.scenario]
                try:
                    outcome = run_point(scenario, point, worker, program)
                except (OSError, shutil.Error, subprocess.SubprocessError) as error:
                    outcome = (False, 0, [f"the laboratory itself failed: {error!r}"])
                with findings.lock:
                    note(findings, point, outcome, tell)
            shutil.rmtree(worker.work / "w", ignore_errors=True)

        for future in [pool.submit(drain, worker) for worker in workers]:
            future.result()
    return findings


def taken(queue: Iterable[Point], lock: threading.Lock) -> Iterable[Point]:
    """Take points from a queue that other threads take from too."""
    source = iter(queue)
    while True:
        with lock:
            point = next(source, None)
        if point is None:
            return
        yield point


def note(
    findings: Findings,
    point: Point,
    outcome: tuple[bool, int, list[str]],
    tell: Callable[[str], None],
) -> None:
    """Add one point to the findings; the caller holds their lock."""
    seen, code, wrong = outcome
    if not seen:
        findings.unseen += 1
    else:
        findings.seen[point.scenario, point.action] += 1
        findings.exits[point.action, code] += 1
    for sentence in wrong:
        findings.failures.append(f"{point.key}: {sentence}")
        tell(f"FAILED {point.key}: {sentence}")
    if findings.total % 100 == 0:
        tell(f"{findings.total} points, {len(findings.failures)} failures")
