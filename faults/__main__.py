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
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from faults import broken, disks, inject, power, vfs
from faults.findings import Findings, as_json, show
from faults.inject import Point, count_calls, execute
from faults.lab import Run, Worker, cut_after_success
from faults.oracle import judge
from faults.plan import ACTIONS, points, spread
from faults.prepare import prepare
from faults.scenarios import COMMANDS, JOURNAL_MODES, Scenario

SAMPLE_POINTS = 72


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
    parser.add_argument("--budget", type=float, help="stop after this many seconds of points")
    parser.add_argument("--command", action="append", help="only this command (repeatable)")
    parser.add_argument("--mode", action="append", choices=JOURNAL_MODES)
    parser.add_argument("--action", action="append", choices=ACTIONS)
    parser.add_argument("--syscall", action="append", help="only at this call")
    parser.add_argument("--number", type=int, help="only the N-th call")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--work", default="/dev/shm" if Path("/dev/shm").is_dir() else None)
    parser.add_argument("--json", type=Path, help="write the findings here")
    parser.add_argument("--no-disks", action="store_true", help="without full and read-only disks")
    parser.add_argument("--no-broken", action="store_true", help="without the broken guards")
    return parser.parse_args(arguments)


def experiment(options: argparse.Namespace, work: Path) -> int:
    began = time.monotonic()
    if no_strace := inject.unavailable():
        print(f"no points can be run: {no_strace}", file=sys.stderr)
        return 2
    no_power = power.unavailable(work)
    actions = [a for a in options.action or ACTIONS if not (a == "power" and no_power)]
    if no_power:
        print(f"no power cuts: {no_power}")
    if no_vfs := vfs.unavailable():
        print(f"no faults inside of the process: {no_vfs}")
    findings = Findings()
    with Worker(work / "first") as worker:
        scenarios = {s.name: s for s in prepared(options, worker)}
        chosen: list[Point] = []
        for scenario in scenarios.values():
            calls = count_calls(scenario, work, worker.warm)
            kept = {k: v for k, v in calls.items() if not options.syscall or k in options.syscall}
            found = list(points(scenario.name, kept, actions))
            chosen += [p for p in found if options.number in (None, p.number)]
            made = ", ".join(f"{len(sizes)} {name}" for name, sizes in kept.items() if sizes)
            tell(f"{scenario.name}: {len(found)} points at {made}")
        if not options.no_disks:
            odd_disks(scenarios.values(), worker, findings, few=options.sample)
        plain_runs(scenarios.values(), worker, findings, cuts=not no_power)
    wanted = SAMPLE_POINTS if options.sample else options.points
    run = Run(scenarios, work, options.jobs)
    run.work_through(spread(chosen, wanted, options.seed), findings, tell, options.budget)
    caught = {} if options.no_broken else catch_broken(run, options.seed, cuts=not no_power)
    show(findings, caught, time.monotonic() - began)
    if options.json:
        options.json.write_text(json.dumps(as_json(findings, caught), indent=1))
    return 1 if findings.failures or not all(caught.values()) else 0


def prepared(options: argparse.Namespace, worker: Worker) -> Iterator[Scenario]:
    for command in COMMANDS:
        if options.command and command.name not in options.command:
            continue
        for mode in options.mode or JOURNAL_MODES:
            yield prepare(command, mode, worker.work, worker.warm)


def odd_disks(
    scenarios: Iterable[Scenario], worker: Worker, findings: Findings, *, few: bool
) -> None:
    """Full disks in ten sizes and read-only disks, one process each."""
    if reason := disks.unavailable(worker.work):
        print(f"no full or read-only disks: {reason}")
        return
    for scenario in scenarios:
        if few and scenario.command.name != "migrate":
            continue
        for kib in disks.STEPS_KIB:
            key, wrong = disks.full_disk(scenario, kib, worker.work, worker.warm)
            take(findings, scenario, "full disk", key, wrong)
        key, wrong = disks.read_only(scenario, worker.work, worker.warm)
        take(findings, scenario, "read-only disk", key, wrong)


def plain_runs(
    scenarios: Iterable[Scenario], worker: Worker, findings: Findings, *, cuts: bool
) -> None:
    """Run without an injected call: with the clock set back, and the power cut after success."""
    for scenario in scenarios:
        world = scenario.template.copy_to(worker.work / "w")
        done = execute(
            scenario.command, world, worker.warm, variation=("faults.broken", "clock_back")
        )
        wrong = judge(scenario, world, done.exit_code, worker.work / "aside")
        take(findings, scenario, "clock back", f"{scenario.name} clock back", wrong)
        if cuts:
            wrong = cut_after_success(scenario, worker)
            take(findings, scenario, "cut after", f"{scenario.name} cut after", wrong)


def take(findings: Findings, scenario: Scenario, action: str, key: str, wrong: list[str]) -> None:
    findings.seen[scenario.name, action] += 1
    for sentence in wrong:
        findings.failures.append(f"{key}: {sentence}")
        tell(f"FAILED {key}: {sentence}")


def catch_broken(run: Run, seed: int, *, cuts: bool) -> dict[str, str]:
    """Run the broken guards until each is caught; the value is the finding, empty if there is none."""
    scenario = run.scenarios.get("migrate/WAL")
    if scenario is None:
        return {}
    with Worker(run.work / "count", scenario.modules) as worker:
        calls = count_calls(scenario, worker.work, worker.warm)
    caught = {}
    for guard, action in broken.GUARDS.items():
        if action == "power" and not cuts:
            continue
        findings = Findings()
        tries = spread(list(points(scenario.name, calls, [action])), None, seed)
        run.work_through(tries, findings, lambda _: None, variation=("faults.broken", guard))
        caught[guard] = findings.failures[0] if findings.failures else ""
        tell(f"broken guard {guard}: {caught[guard] or 'NOT CAUGHT'}")
    return caught


def tell(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
