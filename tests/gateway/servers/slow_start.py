"""A stdio server that takes its time before it answers: SECONDS of work of this kind, like a first download.

`cpu` computes, `io` reads and writes, `child` leaves the work to a process of its own, `stderr` reports,
and `nothing` sleeps.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

KIND, SECONDS = sys.argv[1], float(sys.argv[2])


def work(kind: str, until: float) -> None:
    """Work until then, in seconds of the monotonic clock."""
    while time.monotonic() < until:
        if kind == "cpu":
            sum(range(100_000))
        elif kind == "io":
            with Path("/dev/zero").open("rb") as zeros:
                Path(os.devnull).write_bytes(zeros.read(1_000_000))
            time.sleep(0.02)  # slow by nature: waits for its disk
        else:
            if kind == "stderr":
                print(f"downloading {time.monotonic()}", file=sys.stderr, flush=True)
            time.sleep(0.05)  # slow by nature: waits for its download, or for nothing


if KIND == "child":
    subprocess.run([sys.executable, __file__, "cpu", str(SECONDS), "only"], check=True)
else:
    work(KIND, time.monotonic() + SECONDS)
if len(sys.argv) == 3:
    os.execv(sys.executable, [sys.executable, str(Path(__file__).with_name("plain.py"))])
