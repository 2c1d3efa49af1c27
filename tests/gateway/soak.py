"""Many clients for a long time before a real `serve`, while its servers are killed and frozen at random.

    make soak ARGS="--minutes 30"

Every answer must be the answer to its own question, or an error that says that the server is not
available. In the quiet after each round, the gateway may hold no more tasks, file descriptors,
processes or memory than after the first ones.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import secrets
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.gateway.messages import HELLO, call
from tests.gateway.processes import stop
from tests.gateway.support import SERVERS, process
from tests.harness import Place, clean_environment, new_place

TOOLS = ("raw", "second__raw", "web__raw")
UNAVAILABLE = -32001
PATIENCE_S = 60
"""An answer that takes longer is lost."""
IDLE_S = 6
"""Longer than connections in the pools are kept."""
POOLED = 20
"""Connections to the server over HTTP that the gateway may keep for longer than that."""
PROCESSES = 3
"""Two children, and the grandchild of one."""


@dataclass
class Tally:
    """What has happened so far."""

    outcomes: Counter[str] = field(default_factory=Counter)
    crossed: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    disturbed: Counter[str] = field(default_factory=Counter)

    @property
    def answered(self) -> int:
        return self.outcomes["ok"] + self.outcomes["unavailable"]


@dataclass(frozen=True)
class Held:
    """What the gateway holds on to when nobody asks anything."""

    tasks: int
    descriptors: int
    processes: int
    memory_mib: float


class Soaked:
    """The gateway's process, and what stands around it."""

    def __init__(self, url: str, pid: int, mark: str, http: aiohttp.ClientSession) -> None:
        self.url, self.pid, self.http = url, pid, http
        self._mark = f"SOAK={mark}".encode()

    async def held(self) -> Held:
        async with self.http.get(f"{self.url}/metrics") as reply:
            lines = (await reply.text()).splitlines()
        tasks = next(
            line.split()[1] for line in lines if line.startswith("local_mcp_gateway_tasks")
        )
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        descriptors = len(list(Path(f"/proc/{self.pid}/fd").iterdir()))
        return Held(int(tasks), descriptors, len(list(self.family())), pages * 4096 / 2**20)

    def family(self) -> Iterator[int]:
        """Yield every process that one of our servers is or has started, wherever it hangs now."""
        for folder in Path("/proc").iterdir():
            with suppress(OSError):
                if folder.name.isdigit() and self._mark in (folder / "environ").read_bytes():
                    yield int(folder.name)

    async def child(self, name: str) -> int | None:
        async with self.http.get(f"{self.url}/health/ready") as reply:
            pid: int | None = (await reply.json())["servers"][name]["pid"]
            return pid


@asynccontextmanager
async def soaked(folder: Path, web: str) -> AsyncIterator[Soaked]:
    """Run `serve` with two stdio servers, one of which has a child of its own, and one over HTTP."""
    place, mark = new_place(folder / "soak", shipped=True), secrets.token_hex(8)
    plain = (sys.executable, str(SERVERS / "plain.py"))
    env = ("--env", f"SOAK={mark}", "--")
    for arguments in (
        ("plain", *env, *plain),
        ("second", *env, *plain, "--grandchild"),
        ("web", "--url", web),
    ):
        added = await asyncio.to_thread(place.run, "server", "add", *arguments)
        assert added.code == 0, added.stderr
    child = await asyncio.create_subprocess_exec(
        *place.command, *place.options, "--log-format", "json", "serve", "--port", "0",
        stderr=asyncio.subprocess.PIPE, env=clean_environment(place.home), cwd=place.root,
    )  # fmt: skip
    assert child.stderr is not None
    url = ""
    while not url:
        event = json.loads(await child.stderr.readline())
        url = str(event.get("url", "")).removesuffix("/mcp")
    reading = asyncio.create_task(_discard(child.stderr))
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=1)
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    try:
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
            gateway = Soaked(url, child.pid, mark, http)
            yield gateway
            child.terminate()
            assert await child.wait() == 0, "the gateway stops cleanly after all that"
            assert not list(gateway.family()), "nobody outlives the gateway"
            _check_the_log(place)
    finally:
        if child.returncode is None:
            child.kill()
        await reading
        await child.wait()


def _check_the_log(place: Place) -> None:
    """The log of calls has been kept to its size."""
    ((rows,),) = place.query("SELECT count(*) FROM debug_logs")
    assert 0 < rows <= 10_000, rows


async def _discard(stream: asyncio.StreamReader) -> None:
    while await stream.read(2**16):
        pass


async def client(gateway: Soaked, tally: Tally, numbers: Iterator[int], until: float) -> None:
    """Ask question after question in one session, and judge the answers; leave before some."""
    async with gateway.http.post(f"{gateway.url}/mcp", json=HELLO) as reply:
        headers = {"Mcp-Session-Id": reply.headers["mcp-session-id"]}
    while time.monotonic() < until:
        number = next(numbers)
        asking = asyncio.create_task(ask(gateway, tally, number, headers))
        if number % 97 == 0:  # a client that does not wait for its answer
            await asyncio.sleep(0)
            asking.cancel()
            tally.outcomes["left"] += 1
        await asyncio.gather(asking, return_exceptions=True)
    async with gateway.http.delete(f"{gateway.url}/mcp", headers=headers):
        pass


async def ask(gateway: Soaked, tally: Tally, number: int, headers: dict[str, str]) -> None:
    """Ask one question and judge the answer."""
    message = call("tools/call", number, name=TOOLS[number % 3], arguments={"n": number})
    try:
        async with gateway.http.post(f"{gateway.url}/mcp", json=message, headers=headers) as reply:
            body = await reply.json()
    except (aiohttp.ClientError, TimeoutError) as error:
        tally.lost.append(f"{number}: {type(error).__name__} {error}")
        return
    if body.get("id") != number:
        tally.crossed.append(f"{number}: {body}")
    elif "error" in body:
        known = body["error"]["code"] == UNAVAILABLE
        tally.outcomes["unavailable" if known else f"error {body['error']}"] += 1
        await asyncio.sleep(0.02)  # a server that is down is not asked as fast as one that answers
    else:
        received = json.loads(body["result"]["content"][0]["text"])
        if received["params"]["arguments"] != {"n": number}:
            tally.crossed.append(f"{number}: {received}")
        tally.outcomes["ok"] += 1


class Web:
    """The server over HTTP, which comes back at the same address after it was killed."""

    def __init__(self) -> None:
        self.url = ""
        self._stack: Any = None

    async def start(self) -> None:
        port = self.url.split(":")[2].split("/")[0] if self.url else "0"
        self._stack = process(SERVERS / "plain_http.py", "--port", port)
        _, self.url = await self._stack.__aenter__()

    async def stop(self) -> None:
        await self._stack.__aexit__(None, None, None)


async def disturb(gateway: Soaked, web: Web, tally: Tally, pause_s: float) -> None:
    """Kill, freeze, restart and reload at random."""
    dice = random.Random(7)
    while True:
        await asyncio.sleep(dice.uniform(pause_s / 2, pause_s * 1.5))
        what = dice.choice(["kill", "freeze", "freeze and kill", "restart", "reload"])
        disturbing = asyncio.create_task(disturbance(what, gateway, web, dice))
        try:
            await asyncio.shield(disturbing)
        finally:
            await disturbing  # one that came after the end of a round would be taken for a leak
        tally.disturbed[what] += 1


async def disturbance(what: str, gateway: Soaked, web: Web, dice: random.Random) -> None:
    if what == "restart":
        await web.stop()
        await web.start()
    elif what == "reload":
        os.kill(gateway.pid, signal.SIGHUP)
    elif (pid := await gateway.child(dice.choice(["plain", "second"]))) is not None:
        with suppress(ProcessLookupError):
            if "freeze" in what:
                await stop(pid)
                await asyncio.sleep(0.2)  # it stays frozen for as long
            os.kill(pid, signal.SIGKILL if "kill" in what else signal.SIGCONT)


async def soak(
    folder: Path, *, seconds: float, rounds: int, clients: int = 16, pause_s: float = 1.0
) -> tuple[Tally, list[Held]]:
    """Run for so long; return what happened, and what was held after each round."""
    tally, web, samples = Tally(), Web(), list[Held]()
    numbers = iter(range(1, 10**9))
    await web.start()
    try:
        async with soaked(folder, web.url) as gateway:
            for _ in range(rounds):
                chaos = asyncio.create_task(disturb(gateway, web, tally, pause_s))
                until = time.monotonic() + seconds / rounds
                asked = [client(gateway, tally, numbers, until) for _ in range(clients)]
                await asyncio.gather(*asked)
                chaos.cancel()
                await asyncio.gather(chaos, return_exceptions=True)
                samples.append(await _settled(gateway, tally))
    finally:
        await web.stop()
    return tally, samples


async def _settled(gateway: Soaked, tally: Tally) -> Held:
    """Bring everybody back, let the pools close what they do not need, and look."""
    for name in TOOLS:
        message = call("tools/call", name=name, arguments={})
        try:
            async with gateway.http.post(f"{gateway.url}/mcp", json=message) as reply:
                await reply.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            tally.lost.append(f"{name}: {type(error).__name__} {error}")
    await asyncio.sleep(IDLE_S)
    held = await gateway.held()
    sys.stderr.write(f"{tally.answered} answers, {dict(tally.disturbed)}: {held}\n")
    return held


def leaks(samples: Sequence[Held], *, memory_mib: float) -> list[str]:
    """Return what grew between the first rounds (the very first warms up) and the last ones."""
    first, last = samples[0], samples[-1]
    part = max(1, len(samples) // 4)
    before = statistics.median(held.memory_mib for held in samples[1 : 1 + part])
    after = statistics.median(held.memory_mib for held in samples[-part:])
    found = []
    if last.tasks > first.tasks + 3:
        found.append(f"tasks: {first.tasks} → {last.tasks}")
    if last.descriptors > first.descriptors + POOLED:
        found.append(f"descriptors: {first.descriptors} → {last.descriptors}")
    found += [f"processes: {held.processes}" for held in samples if held.processes != PROCESSES]
    if after > before + memory_mib:
        found.append(f"memory: {before:.1f} → {after:.1f} MiB")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory() as folder:
        running = soak(Path(folder), seconds=minutes * 60, rounds=max(2, round(minutes)))
        tally, samples = asyncio.run(running)
    grown = leaks(samples, memory_mib=5)
    strange = set(tally.outcomes) - {"ok", "unavailable", "left"}
    sys.stdout.write(
        f"{dict(tally.outcomes)}, {len(tally.lost)} lost, {len(tally.crossed)} crossed\n"
        f"disturbed: {dict(tally.disturbed)}\n"
        f"held after the first round: {samples[0]}\nheld at the end:            {samples[-1]}\n"
        f"leaks: {', '.join(grown) or 'none'}\n"
    )
    for line in [*tally.lost[:5], *tally.crossed[:5], *strange]:
        sys.stdout.write(f"  {line}\n")
    raise SystemExit(1 if tally.lost or tally.crossed or strange or grown else 0)


if __name__ == "__main__":
    main()
