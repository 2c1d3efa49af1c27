"""A gateway that replicates a database that is written to all the while, and what can fail fails in turns.

    make soak-replica ARGS="--minutes 10"
    make soak-replica ARGS="--minutes 10 --place sftp"

Killed with SIGKILL: the gateway, Litestream, both. Cut and slow: the line to the S3 store, or to the SFTP server.
Full: the disk of the database. After each, the newest state is restored from the store and compared row by row: it holds all that was
acknowledged longer ago than the lag that `status` showed just before, and it is a state that was.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import pytest

from local_mcp_gateway.database import open_immutable
from local_mcp_gateway.service.admin import ask
from local_mcp_gateway.service.replica import fetch
from tests.harness import GatewayProcess, Place, new_place, poll, wait_gone
from tests.needs import small_disk
from tests.object_store import KEYS, Line, line_to, running_s3
from tests.replicas import Replica
from tests.sftp import running_sftp

COMMIT_S = 0.01
"""From one commit to the next: 100 a second, where the machine can."""
HELD_S = 9.0
"""How long a line is cut or slow, and the disk full."""
SLOW = 5_000
"""Bytes a second of a slow line; the writes here make more."""
DISK = "96m"
TABLES = (
    "CREATE TABLE soak (number INTEGER PRIMARY KEY, text TEXT NOT NULL)",
    "CREATE TABLE soak_last (number INTEGER NOT NULL)",
    "INSERT INTO soak_last VALUES (0)",
)
KINDS = ("gateway", "litestream", "both", "cut", "slow", "full")
PLACES = ("s3", "sftp")


def text_of(number: int) -> str:
    """Return what the row of this number holds."""
    return hashlib.sha256(str(number).encode()).hexdigest()


class Writer:
    """Commits one numbered row after the other, and notes when each commit was acknowledged."""

    def __init__(self, place: Place, pause_s: float = COMMIT_S) -> None:
        self.acknowledged: list[float] = []
        """The moment (`time.monotonic`) of each, from the row 1 on."""
        self.refused: Counter[str] = Counter()
        self._database, self._pause_s = place.database, pause_s
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        with closing(sqlite3.connect(self._database, timeout=60, isolation_level=None)) as live:
            live.execute(
                "PRAGMA wal_autocheckpoint = 0"
            )  # as everybody who writes while Litestream runs
            due = time.monotonic()
            while not self._end.wait(max(0.0, due - time.monotonic())):
                due = max(due + self._pause_s, time.monotonic())
                number = len(self.acknowledged) + 1
                try:
                    live.execute("BEGIN IMMEDIATE")
                    live.execute("INSERT INTO soak VALUES (?, ?)", (number, text_of(number)))
                    live.execute("UPDATE soak_last SET number = ?", (number,))
                    live.execute("COMMIT")
                except sqlite3.Error as error:
                    self.refused[str(error)] += 1
                    with suppress(sqlite3.Error):
                        live.execute("ROLLBACK")
                else:
                    self.acknowledged.append(time.monotonic())

    def until(self, moment: float) -> int:
        """Return how many rows were acknowledged until then."""
        return sum(at <= moment for at in self.acknowledged)


@dataclass
class Tally:
    """What was done and found."""

    faults: Counter[str] = field(default_factory=Counter)
    lags_s: list[float] = field(default_factory=list)
    """What was shown just before each comparison."""
    losses_s: list[float] = field(default_factory=list)
    """Age, at that moment, of the oldest acknowledged row that the restored state does not have."""
    wrong: list[str] = field(default_factory=list)
    rows: int = 0
    refused: Counter[str] = field(default_factory=Counter)


class Soak:
    """One gateway, its store, its writer, and what is done to them."""

    def __init__(
        self, place: Place, line: Line, direct: Replica, by_line: Replica, stack: ExitStack
    ) -> None:
        self.place, self.line, self._direct, self._stack = place, line, direct, stack
        self._env = by_line.env
        self.tally = Tally()
        self.gateway: GatewayProcess
        self.writer: Writer

    def start(self) -> None:
        """Start a gateway; it replicates when this returns."""
        self.gateway = self._stack.enter_context(self.place.serve(env=self._env, log=LOG))
        self.gateway.wait_ready()
        self.gateway.wait_for("replica.started")

    def status(self) -> dict[str, Any]:
        """Return what the gateway says of its replica."""
        found: dict[str, Any] = ask(self.place.database, "status", {}, timeout_s=60)["replica"]
        return found

    def settle(self) -> None:
        """Wait until the replica has everything, and go on writing for a moment."""
        poll(lambda: self.status()["state"] == "level", describe=self.status)
        threading.Event().wait(1.0)

    def litestream(self) -> int:
        started = [e for e in self.gateway.events if e["event"] == "replica.started"]
        pid: int = started[-1]["pid"]
        return pid

    def compare(self, kind: str, break_it: Callable[[], None] = lambda: None) -> None:
        """Note the shown lag, do the harm, restore the newest state, and judge it."""
        asked_at = time.monotonic()
        behind_s = self.status()["behind_s"]
        break_it()
        if behind_s is None:
            self.tally.wrong.append(f"{kind}: no lag was shown")
            return
        needed = self.writer.until(asked_at - behind_s)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "restored.db")
            fetch(self._direct.target, file)
            number, found = judged(file)
        self.tally.wrong += [f"{kind}: {text}" for text in found]
        if number < needed:
            self.tally.wrong.append(
                f"{kind}: {needed - number} rows are missing that were acknowledged more than"
                f" the shown {behind_s:g} s ago"
            )
        self.tally.lags_s.append(behind_s)
        later = self.writer.acknowledged[number:]
        self.tally.losses_s.append(max(0.0, asked_at - later[0]) if later else 0.0)

    def fail(self, kind: str) -> None:
        """Do one kind of harm, compare, and bring everything back."""
        match kind:
            case "gateway" | "both":
                pid = self.litestream()

                def kill() -> None:
                    if kind == "both":
                        os.kill(pid, signal.SIGKILL)
                    os.kill(self.gateway.process.pid, signal.SIGKILL)

                self.compare(kind, kill)
                wait_gone(pid)
                self.start()
            case "litestream":
                seen = len(self.gateway.events)
                self.compare(kind, lambda: os.kill(self.litestream(), signal.SIGKILL))
                self.gateway.wait_for("replica.started", after=seen)
            case "cut" | "slow":
                self.line.stop_after(0, cuts=True) if kind == "cut" else self.line.slow_down(SLOW)
                threading.Event().wait(HELD_S)
                self.compare(kind)
                self.line.mend()
            case "full":
                with full_disk(self.place.database.parent):
                    threading.Event().wait(HELD_S)
                    self.compare(kind)
        self.tally.faults[kind] += 1
        self.settle()


LOG = ("--log-format", "json", "--log-level", "info")


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """Leave no byte free on the disk of this folder."""
    filler = folder / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                with suppress(OSError):
                    while file.write(b"x" * size) == size:
                        pass
        yield
    finally:
        filler.unlink()


def judged(file: Path) -> tuple[int, list[str]]:
    """Return the newest row of a restored state, and what is wrong with it."""
    with closing(open_immutable(file)) as reader:
        wrong = [text for (text,) in reader.execute("PRAGMA integrity_check") if text != "ok"]
        ((last,),) = reader.execute("SELECT number FROM soak_last").fetchall()
        rows = reader.execute("SELECT number, text FROM soak ORDER BY number").fetchall()
    if [number for number, _ in rows] != list(range(1, last + 1)):
        wrong.append(f"{len(rows)} rows and {last} as the last: this state never was")
    wrong += [f"row {number} is {text!r}" for number, text in rows if text != text_of(number)]
    return last, wrong


@contextmanager
def elsewhere(folder: Path, where: str) -> Iterator[tuple[Line, Replica, Replica]]:
    """Yield a line to a place of this kind, and the replica there: reached directly, and by the line."""
    if where == "sftp":
        with running_sftp(folder / "sftp") as sftp, line_to(sftp.port) as line:
            direct = Replica(sftp.url, ssh_key=str(sftp.key), ssh_host_key=sftp.host_key)
            by_line = replace(direct, url=sftp.url.replace(str(sftp.port), str(line.port)))
            yield line, direct, by_line
    else:
        with running_s3() as s3, line_to(s3.port) as line:
            s3.add_bucket("soak")
            direct = Replica("s3://soak/gateway", s3.endpoint)
            yield line, direct, replace(direct, endpoint=line.endpoint)


def soak(
    folder: Path, *, seconds: float, kinds: Sequence[str] = KINDS, where: str = "s3", seed: int = 18
) -> Tally:
    """Go through the kinds of harm, in an order by chance, until the time is over; each at least once."""
    dice = random.Random(seed)
    with ExitStack() as stack:
        line, direct, by_line = stack.enter_context(elsewhere(folder, where))
        root = folder / "machine"
        if "full" in kinds:
            try:
                stack.enter_context(small_disk(root, DISK))
            except pytest.skip.Exception as reason:
                sys.stderr.write(f"no full disk: {reason}\n")
                kinds = [kind for kind in kinds if kind != "full"]
        place = new_place(root, shipped=True)
        place.folder.add("soak", *TABLES)
        gateways = stack.enter_context(ExitStack())
        soaked = Soak(place, line, direct, by_line, gateways)
        soaked.start()
        until = time.monotonic() + seconds
        with Writer(place) as soaked.writer:
            soaked.settle()
            while time.monotonic() < until or not soaked.tally.faults:
                for kind in dice.sample(list(kinds), len(kinds)):
                    if time.monotonic() < until or not soaked.tally.faults[kind]:
                        soaked.fail(kind)
        _end(soaked)
    return soaked.tally


def _end(soaked: Soak) -> None:
    """Stop the gateway: now the replica has every row that was acknowledged."""
    tally, rows = soaked.tally, len(soaked.writer.acknowledged)
    if soaked.gateway.stop() != 0 or "replica.stopped" not in soaked.gateway.names():
        tally.wrong.append("the gateway did not stop with everything sent")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "restored.db")
        fetch(soaked._direct.target, file)
        last, wrong = judged(file)
    tally.wrong += wrong
    if last != rows:
        tally.wrong.append(f"{rows} rows were acknowledged, and {last} came back after the stop")
    tally.rows, tally.refused = rows, soaked.writer.refused


def main() -> None:
    parser = argparse.ArgumentParser(prog="make soak-replica", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--only", action="append", choices=KINDS, help="this kind of harm only")
    parser.add_argument("--place", choices=PLACES, default="s3", help="where the replica is")
    given = parser.parse_args()
    os.environ.update(KEYS)  # for what this process restores
    with tempfile.TemporaryDirectory() as folder:
        kinds = given.only or KINDS
        tally = soak(Path(folder), seconds=given.minutes * 60, kinds=kinds, where=given.place)
    lags, losses = tally.lags_s or [0.0], tally.losses_s or [0.0]
    sys.stdout.write(
        f"{tally.rows} commits acknowledged, {tally.refused.total()} refused"
        f" ({dict(tally.refused)})\n"
        f"harm: {dict(tally.faults)}\n"
        f"shown lag: median {statistics.median(lags):.1f} s, most {max(lags):.1f} s\n"
        f"not in the restored state: what was acknowledged in the last {max(losses):.1f} s at most,"
        f" median {statistics.median(losses):.1f} s\n"
        f"wrong: {len(tally.wrong)}\n"
    )
    for line in tally.wrong[:10]:
        sys.stdout.write(f"  {line}\n")
    raise SystemExit(1 if tally.wrong else 0)


if __name__ == "__main__":
    main()
