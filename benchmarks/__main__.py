"""Run the benchmarks and print one table: what, measured, target, and whether it holds.

`make bench` runs all of them, short. `make bench ARGS="startup gateway"` picks some, `--long` takes
the full sizes, `--quick` the smallest that still tell whether something broke, `--json` prints rows.

A benchmark is a module of this folder with `def measure(size: Size) -> Iterable[Row]`. Absolute times
say little on a shared machine, so a row is a ratio wherever that is possible: both sides run in turns
in the same minute. A missed target is shown, and fails only with `--strict`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import sys
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks.table import Row, Size, render

HERE = Path(__file__).parent
ON_DEMAND = {"gateway_peers"}
"""Benchmarks that fetch what they measure."""
NOT_BENCHMARKS = {"__main__", "__init__", "table", "timing"}


def names() -> list[str]:
    """Return the benchmarks of this folder: the modules that have a `measure`."""
    return [
        path.stem
        for path in sorted(HERE.glob("*.py"))
        if path.stem not in NOT_BENCHMARKS and "\ndef measure(" in path.read_text()
    ]


def main() -> int:
    """Parse, measure, print; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="make bench", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names())}")
    parser.add_argument("--quick", dest="size", action="store_const", const=Size.QUICK)
    parser.add_argument("--long", dest="size", action="store_const", const=Size.LONG)
    parser.add_argument("--peers", action="store_true", help="measure other gateways too")
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a target is missed")
    parser.set_defaults(size=Size.SHORT)
    given = parser.parse_args()
    unknown = set(given.names) - set(names())
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")

    rows: list[Row] = []
    chosen = given.names or [name for name in names() if name not in ON_DEMAND]
    for name in chosen + (sorted(ON_DEMAND - set(chosen)) if given.peers else []):
        started = time.monotonic()
        module = importlib.import_module(f"benchmarks.{name}")
        rows += module.measure(given.size)
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    if given.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        print(f"Python {platform.python_version()}, {platform.machine()}, size {given.size}")
        print(render(rows))
    missed = [row for row in rows if row.holds is False]
    return 1 if given.strict and missed else 0


if __name__ == "__main__":
    sys.exit(main())
