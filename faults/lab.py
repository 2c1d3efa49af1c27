"""The work itself: points run and judged by a few processes, each with a loaded program of its own."""

from __future__ import annotations

import multiprocessing
import multiprocessing.process
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from faults import disks, power
from faults.inject import Point, execute, inject
from faults.oracle import backups_wrong, judge
from faults.runner import Runner, Variation

if TYPE_CHECKING:
    from faults.scenarios import Scenario
    from faults.world import World

Judged = tuple[bool, int, list[str]]
"""Whether the fault was seen, the exit code, and what is wrong."""

T = TypeVar("T")
R = TypeVar("R")


class Worker:
    """One process's own folder, its loaded program and, for power cuts, its own disk."""

    def __init__(self, work: Path) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self.work = work
        self.runner = Runner()
        self.disk: power.Disk | None = None
        self._loaded: tuple[str, ...] = ()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self.runner)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def load(self, modules: tuple[str, ...]) -> None:
        """Let no run after this pay for importing these."""
        if modules != self._loaded:
            self.runner.load(modules)
            self._loaded = modules

    def disk_ready(self) -> power.Disk:
        if self.disk is None:
            self.disk = self._stack.enter_context(power.Disk(self.work / "disk"))
        return self.disk


def run_point(worker: Worker, task: tuple[Scenario, Point, Variation]) -> Judged:
    """Run one point in fresh folders; return whether the fault was seen, the exit code, what is wrong."""
    scenario, point, variation = task
    worker.load(scenario.modules)
    try:
        match point.action:
            case "clock back":
                return clock_back(scenario, worker)
            case "cut after":
                return cut_after_success(scenario, worker)
            case "full disk":
                return disks.full_disk(scenario, point.number, worker.work, worker.runner)
            case "read-only disk":
                return disks.read_only(scenario, worker.work, worker.runner)
            case _:
                return fault(scenario, point, worker, variation)
    except (OSError, shutil.Error, subprocess.SubprocessError) as error:
        return False, 0, [f"the laboratory itself failed: {error!r}"]


def fault(scenario: Scenario, point: Point, worker: Worker, variation: Variation) -> Judged:
    """Run a command with a fault at one of its calls."""
    if point.action == "power":
        disk = worker.disk_ready()
        world = scenario.template.copy_to(disk.mount_point / "w")
        disk.settle()
        outcome = inject(scenario, point, world, worker.work, worker.runner, variation)
        disk.cut()
    else:
        world = scenario.template.copy_to(worker.work / "w")
        outcome = inject(scenario, point, world, worker.work, worker.runner, variation)
    if not outcome.seen and point.action != "power":
        return False, outcome.exit_code, []
    killed = outcome.exit_code < 0
    if point.action == "lie" and not killed:
        wrong = judge_lie(scenario, world, outcome.exit_code, worker)
    else:
        wrong = judge(scenario, world, outcome.exit_code, worker.work / "aside")
    if not killed and not 0 <= outcome.exit_code <= 9:
        wrong.append(f"exit {outcome.exit_code}, which is not a code of the contract")
    if outcome.exit_code == 1 and outcome.to_data:
        wrong.append(f"exit 1 (unexpected): {outcome.stderr[-300:]}")
    return outcome.seen, outcome.exit_code, wrong


def clock_back(scenario: Scenario, worker: Worker) -> Judged:
    """Run with the clock set back."""
    world = scenario.template.copy_to(worker.work / "w")
    done = execute(
        scenario.command, world, worker.runner, variation=("faults.broken", "clock_back")
    )
    return True, done.exit_code, judge(scenario, world, done.exit_code, worker.work / "aside")


def cut_after_success(scenario: Scenario, worker: Worker) -> Judged:
    """Cut the power right after exit 0, or after READY: what was reported as done is there."""
    disk = worker.disk_ready()
    world = scenario.template.copy_to(disk.mount_point / "w")
    disk.settle()
    done = execute(scenario.command, world, worker.runner, stop_by=signal.SIGKILL)
    disk.cut()
    if done.exit_code != 0 and not done.ready:
        return (
            True,
            done.exit_code,
            [f"exit {done.exit_code} without any fault: {done.stderr[-300:]}"],
        )
    return True, done.exit_code, judge(scenario, world, 0, worker.work / "aside")


def judge_lie(scenario: Scenario, world: World, exit_code: int, worker: Worker) -> list[str]:
    """After a write that only claimed to have happened: fine, or said so and a good backup is there."""
    wrong = judge(scenario, world, exit_code, worker.work / "aside")
    if wrong and exit_code in (5, 6, 9):
        return backups_wrong(world) or repaired(world, worker.runner)
    return wrong


def repaired(world: World, runner: Runner) -> list[str]:
    """Restore the newest backup, as the refusal says, and start."""
    done = runner.run(world, "db", "restore", "latest", "--yes")
    if done.exit_code != 0:
        return [f"the damage was told, but the restore fails: {done.stderr[-300:]}"]
    done = runner.run(world, "db", "migrate")
    if done.exit_code != 0:
        return [f"after the restore the start fails: {done.stderr[-300:]}"]
    return []


class Crew:
    """A few processes that share the work, from `with` to its end."""

    def __init__(self, work: Path, jobs: int) -> None:
        self._work = work
        self._jobs = jobs
        self._members: list[Connection] = []
        self._processes: list[multiprocessing.process.BaseProcess] = []

    def __enter__(self) -> Self:
        # Forked, so what is imported here is imported there. Nothing has threads yet.
        fork = multiprocessing.get_context("fork")
        for number in range(self._jobs):
            ours, theirs = fork.Pipe()
            others = [*self._members, ours]
            process = fork.Process(
                target=_serve, args=(self._work / f"worker-{number}", theirs, others)
            )
            process.start()
            theirs.close()
            self._members.append(ours)
            self._processes.append(process)
        return self

    def __exit__(self, *_: object) -> None:
        for member in self._members:
            member.close()
        for process in self._processes:
            process.join()

    def work(self, does: Callable[[Worker, T], R], tasks: Iterable[T]) -> Iterator[tuple[T, R]]:
        """Yield each task with its result, in the order in which they are done.

        A task is taken only when a process is free for it: who stops asking has the rest left out.
        """
        waiting = iter(tasks)
        idle = list(self._members)
        busy: dict[Connection, T] = {}
        try:
            while True:
                while idle and (task := next(waiting, None)) is not None:
                    idle[-1].send((does, task))
                    busy[idle.pop()] = task
                if not busy:
                    return
                for member in wait(list(busy)):
                    assert isinstance(member, Connection)
                    task = busy.pop(member)
                    idle.append(member)
                    yield task, _result(member)
        finally:
            for member in busy:
                member.recv()


def _result(member: Connection) -> Any:
    error, result = member.recv()
    if error is not None:
        raise RuntimeError("a process of the laboratory failed") from error
    return result


def _serve(work: Path, tasks: Connection, others: list[Connection]) -> None:
    """Do what is asked until nobody asks any more."""
    for other in others:
        other.close()
    with Worker(work) as worker:
        while True:
            try:
                does, task = tasks.recv()
            except EOFError:
                return
            try:
                tasks.send((None, does(worker, task)))
            except Exception as error:  # noqa: BLE001  it is raised where the result is awaited
                tasks.send((error, None))
