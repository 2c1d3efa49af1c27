"""`tools/call` through the gateway, compared with the floor and the official SDK as a proxy.

The same upstream, the same client, in turns. The floor does what no gateway can do without; the
client and the upstream share two cores with what is measured, so only ratios mean something.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import aiohttp

from benchmarks.table import Row, Size

ROOT = Path(__file__).parents[1]
ROUNDS = {Size.QUICK: 1, Size.SHORT: 3, Size.LONG: 7}
CALLS = {Size.QUICK: 150, Size.SHORT: 200, Size.LONG: 1500}
BURSTS = 6
CONNECTIONS = 32
HELLO = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "bench", "version": "1"},
    },
}
CALL = (
    b'{"jsonrpc":"2.0","id":%d,"method":"tools/call",'
    b'"params":{"name":"%s","arguments":{"text":"hello"}}}'
)
HEADERS = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


@contextmanager
def side(module: str, *arguments: str) -> Iterator[tuple[str, int]]:
    """Run one side as a process; yield its URL and its pid."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.kill()


class Load:
    """One side under load, on connections that stay open."""

    def __init__(
        self,
        url: str,
        http: aiohttp.ClientSession,
        tool: bytes = b"echo",
        shown: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._url, self._http, self._tool = url, http, tool
        self._headers = {**HEADERS, **shown}
        self._ids = itertools.count(1)

    async def open(self) -> None:
        async with self._http.post(self._url, json=HELLO, headers=self._headers) as reply:
            assert reply.status == 200, await reply.text()
            await reply.read()
            if "mcp-session-id" in reply.headers:
                self._headers["Mcp-Session-Id"] = reply.headers["mcp-session-id"]
        ready = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
        async with self._http.post(self._url, data=ready, headers=self._headers) as reply:
            await reply.read()
        for _ in range(20):
            await self.call()

    async def call(self) -> None:
        async with self._http.post(
            self._url, data=CALL % (next(self._ids), self._tool), headers=self._headers
        ) as reply:
            body = await reply.read()
            assert b"hello" in body, body

    async def p50_ms(self, calls: int) -> float:
        return statistics.median([await self.timed_ms() for _ in range(calls)])

    async def timed_ms(self) -> float:
        started = time.perf_counter()
        await self.call()
        return (time.perf_counter() - started) * 1000

    async def rate(self, calls: int) -> float:
        left = iter(range(calls))

        async def worker() -> None:
            for _ in left:
                await self.call()

        started = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(CONNECTIONS)))
        return calls / (time.perf_counter() - started)


def cpu_s(pid: int) -> float:
    """Return the seconds of CPU that a process has used, in its own code and in the kernel."""
    return time.clock_gettime(~pid << 3 | 2)  # clock_getcpuclockid(3): to the nanosecond


Found = dict[str, tuple[float, float, float]]


async def compare(
    sides: dict[str, tuple[str, int]],
    size: Size,
    tool: bytes = b"echo",
    shown: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> Found:
    """Return p50 in ms, calls/s and CPU in ms a call of each side; `shown` are headers of a side.

    For p50 each side is called once in its turn, and loaded in short bursts in turn, so that all see
    the same machine.
    """
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as http:
        loads = {
            name: Load(url, http, tool, shown.get(name, {})) for name, (url, _) in sides.items()
        }
        for load in loads.values():
            await load.open()
        times: dict[str, list[float]] = {name: [] for name in loads}
        rates: dict[str, list[float]] = {name: [] for name in loads}
        used: dict[str, list[float]] = {name: [] for name in loads}
        for _ in range(ROUNDS[size]):
            for _ in range(CALLS[size]):
                for name, load in loads.items():
                    times[name].append(await load.timed_ms())
            started = {name: cpu_s(sides[name][1]) for name in loads}
            for _ in range(BURSTS):
                for name, load in loads.items():
                    rates[name].append(await load.rate(CALLS[size]))
            for name in loads:
                seconds = cpu_s(sides[name][1]) - started[name]
                used[name].append(seconds / (CALLS[size] * BURSTS) * 1000)
    median = statistics.median
    return {name: (median(times[name]), median(rates[name]), median(used[name])) for name in loads}


def rss_mib(pid: int) -> float:
    """Return the resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def measure(size: Size) -> Iterable[Row]:
    """Compare direct, floor, gateway and SDK proxy."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        direct = stack.enter_context(side("echo_server"))
        url = direct[0]
        sides = {
            "direct": direct,
            "floor": stack.enter_context(side("passthrough", url)),
            "gateway": stack.enter_context(side("gateway_process", folder, f"http:echo:{url}")),
            "sdk": stack.enter_context(side("sdk_proxy", url)),
        }
        found = asyncio.run(compare(sides, size))
        memory = rss_mib(sides["gateway"][1])
    added = {name: p50 - found["direct"][0] for name, (p50, _, _) in found.items()}
    rate = {name: calls for name, (_, calls, _) in found.items()}
    cpu = {name: used for name, (_, _, used) in found.items()}
    yield Row("gateway: added p50 (HTTP)", added["gateway"], "ms")
    yield Row("floor: added p50", added["floor"], "ms")
    yield Row("SDK proxy: added p50", added["sdk"], "ms")
    yield Row("added p50, gateway / floor", added["gateway"] / added["floor"], "×", at_most=1.25)
    yield Row("added p50, gateway / SDK", added["gateway"] / added["sdk"], "×", at_most=1)
    note = ", ".join(f"{name} {calls:.0f}/s" for name, calls in rate.items())
    yield Row(
        "calls/s at 32, gateway / floor", rate["gateway"] / rate["floor"], "×", None, 0.8, note
    )
    yield Row("calls/s at 32, gateway / SDK", rate["gateway"] / rate["sdk"], "×", at_least=4)
    note = ", ".join(f"{name} {used:.2f} ms" for name, used in cpu.items())
    yield Row("CPU a call, gateway / floor", cpu["gateway"] / cpu["floor"], "×", 1.25, None, note)
    yield Row("CPU a call, SDK / gateway", cpu["sdk"] / cpu["gateway"], "×", at_least=4)
    yield Row("gateway: memory after load", memory, "MiB", at_most=75)


def _main() -> None:
    rows: list[Any] = list(measure(Size.QUICK))
    print(*rows, sep="\n")


if __name__ == "__main__":
    _main()
