"""`python -m faults [--sample]`: run the laboratory and print the table."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from faults import broken, disks, power, syscalls, vfs
from faults.findings import Findings, Record, as_json, show
from faults.inject import Calls, Point, count_calls
from faults.lab import Crew, Judged, Worker, run_point
from faults.plan import ACTIONS, BESIDES, points, points_besides, spread
from faults.prepare import prepare
from faults.scenarios import COMMANDS, JOURNAL_MODES, Command, Scenario

if TYPE_CHECKING:
    from faults.runner import Variation

SAMPLE_POINTS = 72
BROKEN = "migrate/WAL"
"""The scenario on which the broken guards are run."""
LEAST_POINTS = 60
"""As many are run however small the budget is."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    in_own_mount_namespace()
    work = Path(tempfile.mkdtemp(prefix="faults-", dir=options.work))
    try:
        return experiment(options, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def in_own_mount_namespace() -> None:
    """Start this process again where no other program's namespace can hold on to our mounts.

    A copy of a mount in somebody else's namespace would keep a disk alive whose power was cut.
    """
    if not shutil.which("unshare") or "FAULTS_OWN_MOUNTS" in os.environ:
        return
    apart = ["unshare", "--mount", "--propagation", "private"]
    if subprocess.run([*apart, "true"], check=False, capture_output=True).returncode == 0:
        os.environ["FAULTS_OWN_MOUNTS"] = "1"
        os.execvp("unshare", [*apart, sys.executable, "-m", "faults", *sys.argv[1:]])


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="faults", description=__doc__)
    parser.add_argument(
        "--sample", action="store_true", help=f"about {SAMPLE_POINTS} points, as CI"
    )
    parser.add_argument("--points", type=int, help="at most this many points")
    parser.add_argument(
        "--record",
        type=Path,
        help="leave out the points that this file says were run, and add to it",
    )
    parser.add_argument("--budget", type=float, help="stop after this many seconds of points")
    parser.add_argument("--command", action="append", help="only this command (repeatable)")
    parser.add_argument("--mode", action="append", choices=JOURNAL_MODES)
    parser.add_argument("--action", action="append", choices=(*ACTIONS, *BESIDES))
    parser.add_argument("--syscall", action="append", help="only at this call")
    parser.add_argument("--number", type=int, help="only the N-th call")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2 * (os.cpu_count() or 1))
    parser.add_argument("--work", default="/dev/shm" if Path("/dev/shm").is_dir() else None)
    parser.add_argument("--json", type=Path, help="write the findings here")
    parser.add_argument("--no-disks", action="store_true", help="without full and read-only disks")
    parser.add_argument("--no-broken", action="store_true", help="without the broken guards")
    return parser.parse_args(arguments)


def experiment(options: argparse.Namespace, work: Path) -> int:
    began = time.monotonic()
    actions = possible(options, work)
    if not actions:
        return 2
    findings, record = Findings(), Record(options.record)
    record.read(findings)
    caught: dict[str, str] = {}
    with Crew(work, options.jobs) as crew:
        scenarios = prepared(options, crew, record)
        calls = {name: record.calls[name] for name in scenarios}
        whole = [*besides(options, actions, scenarios), *at_calls(options, actions, calls)]
        left = [point for point in whole if point not in record.done]
        wanted = SAMPLE_POINTS if options.sample else options.points
        if wanted is not None:
            odd = sum(point.action in BESIDES for point in left)
            del left[odd + wanted :]
        work_through(crew, scenarios, left, findings, record, options.budget)
        if not options.no_broken:
            cuts = "power" in actions
            caught = catch_broken(crew, scenarios, calls, options.seed, cuts=cuts)
    show(findings, caught, time.monotonic() - began)
    if options.record:
        print(f"{len(record.done.intersection(whole))} of {len(whole)} are in {options.record}")
    if options.json:
        options.json.write_text(json.dumps(as_json(findings, caught), indent=1))
    return 1 if findings.failures or not all(caught.values()) else 0


def possible(options: argparse.Namespace, work: Path) -> list[str]:
    """Return the actions that are asked for and that this machine lets us do; say what it does not."""
    actions = options.action or [*ACTIONS, *BESIDES]
    if no_calls := syscalls.unavailable():
        print(f"no points can be run: {no_calls}", file=sys.stderr)
        return []
    if no_power := power.unavailable(work):
        print(f"no power cuts: {no_power}")
        actions = [a for a in actions if a not in ("power", "cut after")]
    if no_vfs := vfs.unavailable():
        print(f"no faults inside of the process: {no_vfs}")
        actions = [a for a in actions if a not in (*vfs.TORN, *vfs.ERRORS)]
    if no_disks := "not asked for" if options.no_disks else disks.unavailable(work):
        print(f"no full or read-only disks: {no_disks}")
        actions = [a for a in actions if not a.endswith("disk")]
    return actions


def prepared(options: argparse.Namespace, crew: Crew, record: Record) -> dict[str, Scenario]:
    """Return each scenario that is asked for; note the calls that it makes without faults."""
    commands = [c for c in COMMANDS if not options.command or c.name in options.command]
    tasks = [(command, mode) for command in commands for mode in options.mode or JOURNAL_MODES]
    scenarios = {s.name: s for _, s in crew.work(get_ready, tasks)}
    uncounted = [s for s in scenarios.values() if s.name not in record.calls]
    for scenario, calls in crew.work(count, uncounted):
        record.count(scenario.name, calls)
    return dict(sorted(scenarios.items()))


def get_ready(worker: Worker, task: tuple[Command, str]) -> Scenario:
    return prepare(*task, worker.work, worker.runner)


def count(worker: Worker, scenario: Scenario) -> Calls:
    worker.load(scenario.modules)
    return count_calls(scenario, worker.work, worker.runner)


def besides(
    options: argparse.Namespace, actions: Sequence[str], scenarios: Mapping[str, Scenario]
) -> Iterator[Point]:
    """Yield what is done to whole runs; of a sample, odd disks under one command only."""
    for name, scenario in scenarios.items():
        few = options.sample and scenario.command.name != "migrate"
        odd = [a for a in actions if a in BESIDES and not (few and a.endswith("disk"))]
        yield from points_besides(name, odd)


def at_calls(
    options: argparse.Namespace, actions: Sequence[str], calls: Mapping[str, Calls]
) -> Iterator[Point]:
    """Yield the points that are asked for, in an order that covers everything early."""
    chosen: list[Point] = []
    for scenario, made in calls.items():
        kept = {k: v for k, v in made.items() if not options.syscall or k in options.syscall}
        found = list(points(scenario, kept, [a for a in actions if a in ACTIONS]))
        chosen += [p for p in found if options.number in (None, p.number)]
        sizes = ", ".join(f"{len(v)} {k}" for k, v in kept.items() if v)
        tell(f"{scenario}: {len(found)} points at {sizes}")
    yield from spread(chosen, None, options.seed)


def work_through(
    crew: Crew,
    scenarios: Mapping[str, Scenario],
    left: Sequence[Point],
    findings: Findings,
    record: Record,
    budget_s: float | None,
) -> None:
    """Run the points until they are done or the budget is spent."""
    end = None if budget_s is None else time.monotonic() + budget_s
    for point, (seen, code, wrong) in run(crew, scenarios, left):
        findings.note(point, seen=seen, exit_code=code, wrong=wrong)
        record.add(point, seen=seen, exit_code=code, wrong=wrong)
        for sentence in wrong:
            tell(f"FAILED {point.key}: {sentence}")
        if seen and findings.injected % 100 == 0 and point.action not in BESIDES:
            tell(f"{findings.injected} points, {len(findings.failures)} failures")
        if end and time.monotonic() > end and findings.injected >= LEAST_POINTS:
            return


def run(
    crew: Crew,
    scenarios: Mapping[str, Scenario],
    chosen: Sequence[Point],
    variation: Variation = (),
) -> Iterator[tuple[Point, Judged]]:
    """Yield each point with what became of it."""
    tasks = ((scenarios[point.scenario], point, variation) for point in chosen)
    for (_, point, _), judged in crew.work(run_point, tasks):
        yield point, judged


def catch_broken(
    crew: Crew,
    scenarios: Mapping[str, Scenario],
    calls: Mapping[str, Calls],
    seed: int,
    *,
    cuts: bool,
) -> dict[str, str]:
    """Run the broken guards until each is caught; the value is the finding, empty if there is none."""
    if BROKEN not in scenarios:
        return {}
    caught = {}
    for guard, action in broken.GUARDS.items():
        if action == "power" and not cuts:
            continue
        tries = spread(list(points(BROKEN, calls[BROKEN], [action])), None, seed)
        caught[guard] = ""
        for point, (_, _, wrong) in run(crew, scenarios, tries, ("faults.broken", guard)):
            if wrong:
                caught[guard] = f"{point.key}: {wrong[0]}"
                break
        tell(f"broken guard {guard}: {caught[guard] or 'NOT CAUGHT'}")
    return caught


def tell(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
