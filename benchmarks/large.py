"""What a person sees and pays who starts a gateway on a large database: `serve`, with one column to add.

The real program under a real notify socket: how much memory it takes against the same start on a small
file, what it tells systemd and its log meanwhile, and how much of the time is the guard's.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.backup import MEBIBYTES, add, fill, guard_in_process
from benchmarks.table import Row, Size

REPOSITORY = Path(__file__).parents[1]
SMALL_MEBIBYTES = 1
NOT_THE_GUARDS = ("apply_ms", "commit_ms")


@dataclass(frozen=True, slots=True)
class Served:
    """One start, from exec to READY and back."""

    peak_mib: float
    """The largest resident size until READY."""
    statuses: tuple[str, ...]
    """Every STATUS= that came before READY, in order, each once."""
    progressed: int
    """Lines of the log that say how far it is."""
    phases: dict[str, float]


def measure(size: Size) -> Iterable[Row]:
    """Yield what a start costs on a large database."""
    mebibytes = MEBIBYTES[size]
    with tempfile.TemporaryDirectory() as name:
        small = served(Path(name) / "small", SMALL_MEBIBYTES)
        large = served(Path(name) / "large", mebibytes)
    label = f"{mebibytes} MiB"
    yield Row(
        f"peak memory of serve until READY, on {label} to on {SMALL_MEBIBYTES} MiB",
        large.peak_mib / small.peak_mib,
        "×",
        at_most=1.25,
        note=f"{large.peak_mib:.0f} MiB, small {small.peak_mib:.0f} MiB",
    )
    shares = [int(found[1]) for text in large.statuses if (found := re.search(r", (\d+) %", text))]
    yield Row(
        f"STATUS= lines until READY on {label}",
        len(large.statuses),
        "",
        at_least=4,
        note=f"{len(shares)} with a share, {large.progressed} in the log: {'; '.join(large.statuses)}",
    )
    whole = sum(large.phases.values())
    own = sum(spent for name, spent in large.phases.items() if name not in NOT_THE_GUARDS)
    yield Row(
        f"the guard's extra cost in serve on {label}",
        own,
        "ms",
        note=f"of {whole:.0f} ms: "
        + ", ".join(f"{name[:-3]} {spent:.0f}" for name, spent in large.phases.items()),
    )


def served(folder: Path, mebibytes: int) -> Served:
    """Fill a database of the program's own schema, add a column to it under `serve`, stop it again."""
    migrations = folder / "migrations"
    shutil.copytree(REPOSITORY / "migrations", migrations)
    add(migrations, "CREATE TABLE notes (id INTEGER PRIMARY KEY, kind TEXT, body TEXT)")
    database = folder / "large.db"
    guard_in_process(database, migrations)
    fill(database, mebibytes)
    add(migrations, "ALTER TABLE notes ADD COLUMN added TEXT")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(folder / "notify"))
        process = subprocess.Popen(
            [sys.executable, "-m", "local_mcp_gateway", "--database", str(database), "--migrations",
             str(migrations), "--log-format", "json", "serve", "--port", "0"],
            env={**os.environ, "NOTIFY_SOCKET": str(folder / "notify"), "HOME": str(folder)},
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        lines: list[str] = []
        assert process.stderr is not None
        reader = threading.Thread(target=lines.extend, args=(process.stderr,))
        reader.start()
        statuses = _until_ready(manager, process)
        if process.poll() is not None:
            reader.join()
            raise RuntimeError("".join(lines))
        seen = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
        process.send_signal(signal.SIGTERM)
        reader.join()
        if process.wait() != 0 or seen is None:
            raise RuntimeError("".join(lines))
    events: list[dict[str, Any]] = [json.loads(line) for line in lines]
    ready = next(event for event in events if event["event"] == "guard.ready")
    return Served(
        peak_mib=int(seen[1]) / 1024,
        statuses=tuple(dict.fromkeys(statuses)),
        progressed=sum(event["event"] == "guard.progressed" for event in events),
        phases={key: ready[key] for key in ready if key.endswith("_ms") and key != "duration_ms"},
    )


def _until_ready(manager: socket.socket, process: subprocess.Popen[str]) -> list[str]:
    """Return what the service says about itself until it is ready, or has ended without."""
    manager.settimeout(1)
    statuses: list[str] = []
    while process.poll() is None:
        try:
            fields = dict(line.split("=", 1) for line in manager.recv(4096).decode().splitlines())
        except TimeoutError:
            continue
        if "READY" in fields:
            break
        if "STATUS" in fields:
            statuses.append(fields["STATUS"])
    return statuses
