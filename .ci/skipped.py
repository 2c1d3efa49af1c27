"""Compare the tests that were skipped with the list of those that may be.

`python .ci/skipped.py REPORT.xml skipped.txt`. A line of the list is a test's id as `pytest -ra` shows
it (without parameters: one line covers all of them), a blank, and why it may be skipped. Exit 1 when a
test was skipped that is not listed, or one is listed that ran: a machine that stops running a test must
not go unnoticed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree as ET


def skipped(report: Path) -> dict[str, str]:
    """Return id → reason of every test that was skipped."""
    found = {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314  pytest wrote it a minute ago
        for skip in case.iter("skipped"):
            name = case.get("name", "").partition("[")[0]
            found[f"{case.get('classname')}::{name}"] = skip.get("message", "")
    return found


def main() -> int:
    """Print what differs; return the exit code."""
    was = skipped(Path(sys.argv[1]))
    listed = {
        line.split()[0]
        for line in Path(sys.argv[2]).read_text().splitlines()
        if line.strip() and not line.startswith("#")
    }
    for name in sorted(was.keys() - listed):
        print(f"skipped but not listed: {name}: {was[name]}")
    for name in sorted(listed - was.keys()):
        print(f"listed as skipped but ran, or is gone: {name}")
    if was.keys() == listed:
        print(f"{len(was)} skipped, all of them listed")
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
