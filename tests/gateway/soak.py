"""Many clients for a long time, while servers are killed and restarted at random.

    python -m tests.gateway.soak --minutes 30

Every answer must be the answer to its own question, or an error that says that the server is not
available. At the end there may be no more tasks, file descriptors, children or memory than after the
first seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp

from tests.gateway.support import QUICK, SERVERS, Running, gateway_of, http, process, stdio
from tests.gateway.test_faces import call

TOOLS = ("raw", "second__raw", "web__raw")
UNAVAILABLE = -32001
IDLE_S = 6
"""Longer than connections in the pools are kept."""


@dataclass
class Tally:
    """What has happened so far."""

    outcomes: Counter[str] = field(default_factory=Counter)
    crossed: list[str] = field(default_factory=list)
    kills: int = 0

    @property
    def answered(self) -> int:
        return self.outcomes["ok"]


@dataclass(frozen=True)
class Held:
    """What the process holds on to."""

    tasks: int
    descriptors: int
    children: int
    memory_mib: float


def held() -> Held:
    gc.collect()
    pid = os.getpid()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    return Held(len(asyncio.all_tasks()), descriptors, len(children), pages * 4096 / 2**20)


async def ask(running: Running, session: aiohttp.ClientSession, tally: Tally, number: int) -> None:
    """Ask one question and judge the answer."""
    tool = TOOLS[number % len(TOOLS)]
    message = call("tools/call", number, name=tool, arguments={"n": number})
    async with session.post(running.url, json=message) as reply:
        body = await reply.json()
    if body["id"] != number:
        tally.crossed.append(f"{number}: id {body['id']}")
    elif "error" in body:
        known = body["error"]["code"] == UNAVAILABLE
        tally.outcomes["unavailable" if known else f"error {body['error']}"] += 1
    else:
        received = json.loads(body["result"]["content"][0]["text"])
        if received["params"]["arguments"] != {"n": number}:
            tally.crossed.append(f"{number}: {received}")
        tally.outcomes["ok"] += 1


async def disturb(running: Running, tally: Tally, pause_s: float) -> None:
    """Kill a child now and then; half of them are frozen first."""
    dice = random.Random(7)
    while True:
        await asyncio.sleep(dice.uniform(pause_s / 2, pause_s * 1.5))
        servers = running.gateway.status()["servers"]
        pid = servers[dice.choice(["plain", "second"])]["pid"]
        if pid is None:
            continue
        with suppress(ProcessLookupError):
            if dice.random() < 0.5:
                os.kill(pid, signal.SIGSTOP)
                await asyncio.sleep(0.2)
            os.kill(pid, signal.SIGKILL)
            tally.kills += 1


async def soak(
    folder: Path, *, seconds: float, clients: int = 16, pause_s: float = 1.0
) -> tuple[Tally, Held, Held]:
    """Run for so long; return what happened, and what was held after a warm-up and at the end."""
    tally = Tally()
    plain = stdio("plain", "plain.py")
    servers = plain, replace(plain, name="second")
    async with process(SERVERS / "plain_http.py") as (_, url):
        async with gateway_of(folder, *servers, http("web", url), options=QUICK) as running:
            connector = aiohttp.TCPConnector(keepalive_timeout=1)
            async with aiohttp.ClientSession(connector=connector) as session:
                numbers = iter(range(1, 10**9))

                async def client(until: float) -> None:
                    while time.monotonic() < until:
                        await ask(running, session, tally, next(numbers))

                async def load(seconds: float) -> None:
                    until = time.monotonic() + seconds
                    await asyncio.gather(*(client(until) for _ in range(clients)))
                    running.said.clear()
                    for name in TOOLS:  # whoever was killed last is there again
                        await running.post(call("tools/call", name=name, arguments={}))
                    await asyncio.sleep(IDLE_S)

                await load(1)
                before = held()
                chaos = asyncio.create_task(disturb(running, tally, pause_s))
                running_load = asyncio.create_task(load(seconds))
                await asyncio.sleep(seconds)
                chaos.cancel()
                await asyncio.gather(chaos, return_exceptions=True)
                await running_load
                return tally, before, held()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    seconds = parser.parse_args().minutes * 60
    with tempfile.TemporaryDirectory() as folder:
        tally, before, after = asyncio.run(soak(Path(folder), seconds=seconds))
    sys.stdout.write(
        f"{dict(tally.outcomes)}, {tally.kills} kills, {len(tally.crossed)} crossed\n"
        f"after the warm-up: {before}\nat the end:        {after}\n"
    )
    raise SystemExit(1 if tally.crossed or after.descriptors > before.descriptors + 5 else 0)


if __name__ == "__main__":
    main()
