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
from collections.abc import Sequence
from pathlib import Path

from faults import broken, disks, power
from faults.inject import Point, count_calls, execute
from faults.lab import Findings, Worker, cut_after_success, work_through
from faults.oracle import judge
from faults.plan import ACTIONS, points, spread
from faults.scenarios import COMMANDS, JOURNAL_MODES, Scenario, exists, prepare

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
    if os.geteuid() != 0 or not shutil.which("unshare") or "FAULTS_OWN_MOUNTS" in os.environ:
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
    if shutil.which("strace") is None:
        print("strace is not installed: no points can be run.", file=sys.stderr)
        return 2
    no_power = power.available(work)
    actions = [a for a in options.action or ACTIONS if not (a == "power" and no_power)]
    if no_power:
        print(f"no power cuts: {no_power}")
    scenarios = prepared(options, work)
    chosen: list[Point] = []
    for scenario in scenarios.values():
        counts = count_calls(scenario, work)
        kept = {k: v for k, v in counts.items() if not options.syscall or k in options.syscall}
        found = list(points(scenario.name, kept, actions))
        chosen += [p for p in found if options.number in (None, p.number)]
        print(f"{scenario.name}: {sum(kept.values())} calls, {len(found)} points  {kept}")
    wanted = SAMPLE_POINTS if options.sample else options.points
    chosen = spread(chosen, wanted, options.seed)
    findings = work_through(
        scenarios, chosen, work, jobs=options.jobs, budget_s=options.budget, tell=tell
    )
    if options.no_disks or (no_mounts := disks.unavailable(work)):
        print(
            f"no full or read-only disks: {no_mounts if not options.no_disks else 'not asked for'}"
        )
    else:
        odd_disks(scenarios, work, findings, few=options.sample)
    plain_runs(scenarios, work, findings, cuts=not no_power)
    caught = {} if options.no_broken else catch_broken(scenarios, work, options, bool(no_power))
    show(findings, caught, time.monotonic() - began)
    if options.json:
        options.json.write_text(json.dumps(as_json(findings, caught), indent=1))
    return 1 if findings.failures or not all(caught.values()) else 0


def prepared(options: argparse.Namespace, work: Path) -> dict[str, Scenario]:
    scenarios = {}
    for command in COMMANDS:
        if options.command and command.name not in options.command:
            continue
        if not exists(command, work):
            print(f"{command.name}: the program does not have this command")
            continue
        for mode in options.mode or JOURNAL_MODES:
            scenario = prepare(command, mode, work)
            scenarios[scenario.name] = scenario
    return scenarios


def odd_disks(scenarios: dict[str, Scenario], work: Path, findings: Findings, *, few: bool) -> None:
    """Full disks in ten sizes and read-only disks, one process each."""
    for scenario in scenarios.values():
        if few and scenario.command.name != "migrate":
            continue
        for kib in disks.STEPS_KIB:
            key, wrong = disks.full_disk(scenario, kib, work)
            take(findings, scenario, "full disk", key, wrong)
        key, wrong = disks.read_only(scenario, work)
        take(findings, scenario, "read-only disk", key, wrong)


def plain_runs(
    scenarios: dict[str, Scenario], work: Path, findings: Findings, *, cuts: bool
) -> None:
    """Run without an injected call: with the clock set back, and the power cut after success."""
    worker = Worker(work / "plain")
    with worker.stack:
        for scenario in scenarios.values():
            world = scenario.template.copy_to(worker.work / "w")
            code, _ = execute(scenario, world, program=broken.program("clock-back"))
            wrong = judge(scenario, world, code, worker.work / "aside")
            take(findings, scenario, "clock back", f"{scenario.name} clock back", wrong)
            if cuts:
                wrong = cut_after_success(scenario, worker)
                take(findings, scenario, "cut after", f"{scenario.name} cut after", wrong)


def take(findings: Findings, scenario: Scenario, action: str, key: str, wrong: list[str]) -> None:
    findings.seen[scenario.name, action] += 1
    for sentence in wrong:
        findings.failures.append(f"{key}: {sentence}")
        tell(f"FAILED {key}: {sentence}")


def catch_broken(
    scenarios: dict[str, Scenario],
    work: Path,
    options: argparse.Namespace,
    no_power: bool,  # noqa: FBT001
) -> dict[str, str]:
    """Run the broken guards until each is caught; the value is the finding, empty if there is none."""
    scenario = scenarios.get("migrate/WAL")
    if scenario is None:
        return {}
    counts = count_calls(scenario, work)
    kills = list(points(scenario.name, counts, ["kill"]))
    cuts = list(points(scenario.name, counts, ["power"]))
    trials = {"commit-each": kills, "ledger-outside": kills}
    if not no_power:
        trials["no-backup-fsync"] = cuts
    caught = {}
    for variation, tries in trials.items():
        found = work_through(
            scenarios,
            spread(tries, None, options.seed),
            work / variation,
            jobs=options.jobs,
            budget_s=600,
            tell=lambda _: None,
            program=broken.program(variation),
            until_failure=True,
        )
        caught[variation] = found.failures[0] if found.failures else ""
        tell(f"broken guard {variation}: {caught[variation] or 'NOT CAUGHT'}")
    return caught


def show(findings: Findings, caught: dict[str, str], spent_s: float) -> None:
    """Print the table: scenario by action, points seen."""
    actions = [*ACTIONS, "cut after", "clock back", "full disk", "read-only disk"]
    used = [a for a in actions if any(key[1] == a for key in findings.seen)]
    print("\n| command / journal mode | " + " | ".join(used) + " |")
    print("|---|" + "---:|" * len(used))
    for name in sorted({key[0] for key in findings.seen}):
        print(f"| {name} | " + " | ".join(str(findings.seen[name, a]) for a in used) + " |")
    print(f"\n{findings.total} distinct points seen in the trace, {len(findings.failures)} failures, "
          f"{findings.unseen} not reached, {spent_s:.0f} s")  # fmt: skip
    for variation, finding in caught.items():
        print(f"broken guard {variation}: {'caught: ' + finding if finding else 'NOT CAUGHT'}")
    for failure in findings.failures[:50]:
        print(f"FAILED {failure}")


def as_json(findings: Findings, caught: dict[str, str]) -> dict[str, object]:
    return {
        "points": findings.total,
        "unseen": findings.unseen,
        "failures": findings.failures,
        "seen": {f"{name} {action}": n for (name, action), n in sorted(findings.seen.items())},
        "exits": {f"{action} {code}": n for (action, code), n in sorted(findings.exits.items())},
        "broken": caught,
    }


def tell(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
