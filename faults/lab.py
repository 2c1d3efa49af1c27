"""The run itself: scenarios prepared, points worked through by a few threads, findings collected."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from faults import power
from faults.inject import Point, execute, inject
from faults.oracle import backups_wrong, judge
from faults.warm import Variation, Warm

if TYPE_CHECKING:
    from types import TracebackType

    from faults.findings import Findings
    from faults.scenarios import Scenario
    from faults.world import World

LEAST_POINTS = 60
"""As many are run however small the budget is."""


class Worker:
    """One thread's own folder, its loaded program and, for power cuts, its own disk."""

    def __init__(self, work: Path, modules: Iterable[str] = ()) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self.work = work
        self.modules = modules
        self.warm = Warm()
        self.disk: power.Disk | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self.warm)
        self.warm.load(self.modules)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def disk_ready(self) -> power.Disk:
        if self.disk is None:
            self.disk = self._stack.enter_context(power.Disk(self.work / "disk"))
        return self.disk


def run_point(
    scenario: Scenario, point: Point, worker: Worker, variation: Variation = ()
) -> tuple[bool, int, list[str]]:
    """Run one point in fresh folders; return whether the fault was seen, the exit code, what is wrong."""
    if point.action == "power":
        disk = worker.disk_ready()
        world = scenario.template.copy_to(disk.mount_point / "w")
        disk.settle()
        outcome = inject(scenario, point, world, worker.work, worker.warm, variation)
        disk.cut()
    else:
        world = scenario.template.copy_to(worker.work / "w")
        outcome = inject(scenario, point, world, worker.work, worker.warm, variation)
    if not outcome.seen and point.action != "power":
        return False, outcome.exit_code, []
    killed = outcome.exit_code < 0
    if point.action == "lie" and not killed:
        wrong = judge_lie(scenario, world, outcome.exit_code, worker)
    else:
        wrong = judge(scenario, world, outcome.exit_code, worker.work / "aside")
    if not killed and not 0 <= outcome.exit_code <= 9:
        wrong.append(f"exit {outcome.exit_code}, which is no code of the contract")
    if outcome.exit_code == 1 and outcome.to_data:
        wrong.append(f"exit 1 (unexpected): {outcome.stderr[-300:]}")
    return outcome.seen, outcome.exit_code, wrong


def cut_after_success(scenario: Scenario, worker: Worker) -> list[str]:
    """Cut the power right after exit 0, or after READY: what was reported as done is there."""
    disk = worker.disk_ready()
    world = scenario.template.copy_to(disk.mount_point / "w")
    disk.settle()
    done = execute(scenario.command, world, worker.warm, stop_by=signal.SIGKILL)
    disk.cut()
    ready = scenario.command.serves and '"service.ready"' in done.stderr
    if done.exit_code != 0 and not ready:
        return [f"exit {done.exit_code} without any fault: {done.stderr[-300:]}"]
    return judge(scenario, world, 0, worker.work / "aside")


def judge_lie(scenario: Scenario, world: World, exit_code: int, worker: Worker) -> list[str]:
    """After a write that only claimed to have happened: fine, or said so and a good backup is there."""
    wrong = judge(scenario, world, exit_code, worker.work / "aside")
    if wrong and exit_code in (5, 6, 9):
        return backups_wrong(world) or repaired(world, worker.warm)
    return wrong


def repaired(world: World, warm: Warm) -> list[str]:
    """Restore the newest backup, as the refusal says, and start."""
    done = warm.run(world, "db", "restore", "latest", "--yes")
    if done.exit_code != 0:
        return [f"the damage was told, but the restore fails: {done.stderr[-300:]}"]
    done = warm.run(world, "db", "migrate")
    if done.exit_code != 0:
        return [f"after the restore the start fails: {done.stderr[-300:]}"]
    return []


@dataclass(frozen=True, slots=True)
class Run:
    """What every round of points shares."""

    scenarios: Mapping[str, Scenario]
    work: Path
    jobs: int

    def work_through(
        self,
        chosen: Sequence[Point],
        findings: Findings,
        tell: Callable[[str], None],
        budget_s: float | None = None,
        *,
        variation: Variation = (),
    ) -> None:
        """Run the points in a few threads until they are done or the budget is spent.

        Of a broken guard (`variation`) the first failure is enough.
        """
        modules = dict.fromkeys(m for s in self.scenarios.values() for m in s.modules)
        queue = iter(chosen)
        end = None if budget_s is None else time.monotonic() + budget_s

        def drain(number: int) -> None:
            with Worker(self.work / f"worker-{number}", modules) as worker:
                while True:
                    with findings.lock:
                        late = end is not None and time.monotonic() > end
                        enough = late and findings.injected >= LEAST_POINTS
                        if enough or (variation and findings.failures):
                            return
                        point = next(queue, None)
                    if point is None:
                        return
                    seen, code, wrong = self._point(point, worker, variation)
                    with findings.lock:
                        findings.note(point, seen=seen, exit_code=code, wrong=wrong)
                        for sentence in wrong:
                            tell(f"FAILED {point.key}: {sentence}")
                        if seen and findings.injected % 100 == 0:
                            tell(f"{findings.injected} points, {len(findings.failures)} failures")

        with ThreadPoolExecutor(self.jobs) as pool:
            for future in [pool.submit(drain, number) for number in range(self.jobs)]:
                future.result()

    def _point(
        self, point: Point, worker: Worker, variation: Variation
    ) -> tuple[bool, int, list[str]]:
        try:
            return run_point(self.scenarios[point.scenario], point, worker, variation)
        except (OSError, shutil.Error, subprocess.SubprocessError) as error:
            return False, 0, [f"the laboratory itself failed: {error!r}"]
