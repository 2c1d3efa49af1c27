"""What a replica costs the calls, how far behind it is, and how long it takes to stop and to restore.

Two gateways as `serve` runs them, one with a replica in a folder, called in turns. A program commits a hundred times
a second for the lag and for the stop. The restore is `db restore --from` on a new machine, with its full check, of random
data, beside `cp` of the same file and beside what Litestream takes by itself.
"""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import statistics
import subprocess
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterable
from contextlib import ExitStack, closing
from pathlib import Path
from shutil import which

from benchmarks.gateway import compare, side
from benchmarks.table import Row, Size
from local_mcp_gateway.service.admin import ask
from tests.harness import GatewayProcess, Place, new_place, poll
from tests.replicas import Replica
from tests.service.replica.soak import TABLES, Writer

SECONDS = {Size.QUICK: 5, Size.SHORT: 20, Size.LONG: 60}
MIB = {Size.QUICK: 32, Size.SHORT: 256, Size.LONG: 1024}
LARGE = "CREATE TABLE large (x BLOB NOT NULL)"
LOG = ("--log-format", "json", "--log-level", "info")


def measure(size: Size) -> Iterable[Row]:
    with tempfile.TemporaryDirectory() as folder:
        yield from _beside_calls(Path(folder), size)
    with tempfile.TemporaryDirectory() as folder:
        yield from _restored(Path(folder), size)


def _in_folder(folder: Path) -> Replica:
    (folder / "elsewhere").mkdir()
    return Replica(f"file://{folder}/elsewhere")


def _beside_calls(folder: Path, size: Size) -> Iterable[Row]:
    with ExitStack() as stack:
        server, _ = stack.enter_context(side("echo_server"))
        places = {name: new_place(folder / name, shipped=True) for name in ("off", "on")}
        gateways: dict[str, GatewayProcess] = {}
        for name, place in places.items():
            place.folder.add("soak", *TABLES)
            assert place.run("server", "add", "echo", "--url", server).code == 0
            env = _in_folder(folder).env if name == "on" else {}
            gateway = stack.enter_context(place.serve(env=env, log=LOG))
            gateways[name] = gateway.wait_ready()
        on = gateways["on"]
        poll(lambda: _lag(places["on"]) is not None)
        sides = {name: (f"{each.url}/mcp", each.process.pid) for name, each in gateways.items()}
        found = asyncio.run(compare(sides, size))
        (p50_off, _, cpu_off), (p50, _, cpu) = found["off"], found["on"]
        note = f"{p50_off:.3f} ms off, {p50:.3f} ms on"
        yield Row("tools/call p50, replica on / off", p50 / p50_off, "×", at_most=1.1, note=note)
        note = f"{cpu_off:.2f} ms off, {cpu:.2f} ms on, without Litestream's own"
        yield Row("CPU a call, replica on / off", cpu / cpu_off, "×", note=note)
        with Writer(places["on"]) as writer:
            lags = _lags(places["on"], SECONDS[size])
            rate = len(writer.acknowledged) / SECONDS[size]
            told = time.perf_counter()
            on.signal(signal.SIGTERM)
            on.wait_for("replica.stopped")
            stopped_s = time.perf_counter() - told
        note = f"{len(lags)} looks, median {statistics.median(lags):.1f} s, {rate:.0f} commits/s"
        p95 = statistics.quantiles(lags, n=20)[-1]
        yield Row("replica: shown lag at 100 commits/s, p95", p95, "s", at_most=2, note=note)
        yield Row("replica: SIGTERM to all sent", stopped_s, "s", at_most=1)


def _lag(place: Place) -> float | None:
    found: float | None = ask(place.database, "status", {}, timeout_s=60)["replica"]["behind_s"]
    return found


def _lags(place: Place, seconds: float) -> list[float]:
    """Look ten times a second."""
    pause, until, found = threading.Event(), time.monotonic() + seconds, []
    while time.monotonic() < until:
        if (lag := _lag(place)) is not None:
            found.append(lag)
        pause.wait(0.1)
    return found


def _restored(folder: Path, size: Size) -> Iterable[Row]:
    place, replica = new_place(folder / "machine", shipped=True), _in_folder(folder)
    place.folder.add("large", LARGE)
    place.migrate()
    with closing(sqlite3.connect(place.database, isolation_level=None)) as live:
        for _ in range(MIB[size]):
            live.execute("INSERT INTO large VALUES (randomblob(1048576))")
    with place.serve(env=replica.env, log=LOG) as gateway:
        gateway.wait_ready()
        gateway.wait_for("replica.started")
        until = time.monotonic() + 300
        while _lag(place) is None and time.monotonic() < until:
            threading.Event().wait(0.2)
        gateway.stop()
    litestream = which("litestream", path=sysconfig.get_path("scripts"))
    assert litestream is not None
    copies, alone, restores = [], [], []
    for number in range(2):
        started = time.perf_counter()
        subprocess.run(["cp", place.database, folder / "copy.db"], check=True)
        copies.append(time.perf_counter() - started)
        started = time.perf_counter()
        bare = [litestream, "restore", "-o", str(folder / f"bare{number}.db"), replica.url]
        subprocess.run(bare, check=True, capture_output=True)
        alone.append(time.perf_counter() - started)
        new = new_place(folder / f"new{number}", shipped=True)
        new.folder.add("large", LARGE)
        started = time.perf_counter()
        done = new.run("db", "restore", "--from", replica.url, "--yes")
        restores.append(time.perf_counter() - started)
        assert done.code == 0, done.stderr
        new.database.unlink()
    note = f"{MIB[size]} MiB of random data: {min(restores):.1f} s"
    for what, floor, at_most in (("cp", copies, 4.0), ("Litestream alone", alone, 1.5)):
        yield Row(
            f"replica: restore from a folder / {what}",
            min(restores) / min(floor),
            "×",
            at_most=at_most,
            note=f"{note}, {what} {min(floor):.1f} s",
        )
