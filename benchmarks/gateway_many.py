"""Twenty stdio servers behind one gateway: lists from the catalog, one frozen server, idle clients."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.gateway import HEADERS, HELLO, rss_mib, side
from benchmarks.table import Row, Size

SERVERS = 20
CHILD = Path(__file__).parent / "child.py"
CALLS = {Size.QUICK: 50, Size.SHORT: 200, Size.LONG: 1000}
SESSIONS = {Size.QUICK: 200, Size.SHORT: 1000, Size.LONG: 1000}


async def _post(http: aiohttp.ClientSession, url: str, method: str, **params: Any) -> Any:
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    async with http.post(url, json=message, headers=HEADERS) as reply:
        return await reply.json()


async def _times(
    http: aiohttp.ClientSession, url: str, calls: int, method: str, **params: Any
) -> list[float]:
    taken = []
    for _ in range(calls):
        started = time.perf_counter()
        body = await _post(http, url, method, **params)
        taken.append((time.perf_counter() - started) * 1000)
        assert "result" in body, body
    return sorted(taken)


async def _all_up(http: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    """Wait until every server is connected; return the servers' states."""
    while True:
        async with http.get(url.replace("/mcp", "/health/ready")) as reply:
            servers: dict[str, Any] = (await reply.json())["servers"]
        if all(server["state"] == "ready" for server in servers.values()):
            return servers
        await asyncio.sleep(0.1)


async def _first_list(url: str) -> float:
    """Return the seconds until the first list, which names every tool."""
    async with aiohttp.ClientSession() as http:
        started = time.perf_counter()
        body = await _post(http, url, "tools/list")
        taken = time.perf_counter() - started
        assert len(body["result"]["tools"]) == SERVERS * 4
        return taken


async def _fill(url: str) -> None:
    async with aiohttp.ClientSession() as http:
        await _post(http, url, "tools/list")
        await _all_up(http, url)
        await asyncio.sleep(0.5)


async def _measure(url: str, pid: int, size: Size) -> list[Row]:
    rows = []
    async with aiohttp.ClientSession() as http:
        servers = await _all_up(http, url)
        listed = await _times(http, url, CALLS[size], "tools/list")
        rows.append(
            Row("tools/list, 80 tools of 20 servers: p50", statistics.median(listed), "ms", 3)
        )
        tool = {"name": "s1_echo", "arguments": {"text": "x"}}
        before = await _times(http, url, CALLS[size], "tools/call", **tool)
        frozen = servers["s7"]["pid"]
        os.kill(frozen, signal.SIGSTOP)
        stuck = asyncio.create_task(_post(http, url, "tools/call", name="s7_echo", arguments={}))
        after = await _times(http, url, CALLS[size], "tools/call", **tool)
        os.kill(frozen, signal.SIGCONT)
        await stuck
        p99 = after[int(len(after) * 0.99) - 1] / before[int(len(before) * 0.99) - 1]
        note = "with one of 20 servers frozen / with none: noise apart, 1"
        rows.append(Row("p99 of the others", p99, "×", 2, None, note))
        rows.append(Row("gateway with 20 children: memory", rss_mib(pid), "MiB", at_most=75))
        memory = rss_mib(pid)
        for _ in range(SESSIONS[size]):
            async with http.post(url, json=HELLO, headers=HEADERS) as reply:
                await reply.read()
        each = (rss_mib(pid) - memory) * 1024 / SESSIONS[size]
        rows.append(Row("an idle client session", each, "KiB", at_most=40))
        each = await _streaming_kib(url, pid, SESSIONS[size])
        rows.append(Row("an idle client session with an open stream", each, "KiB", at_most=40))
    return rows


async def _streaming_kib(url: str, pid: int, sessions: int) -> float:
    """Return the memory of a client that holds its GET stream open."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        memory, streams = rss_mib(pid), []
        for _ in range(sessions):
            async with http.post(url, json=HELLO, headers=HEADERS) as reply:
                await reply.read()
                session = reply.headers["mcp-session-id"]
            asked = {"Accept": "text/event-stream", "Mcp-Session-Id": session}
            streams.append(await http.get(url, headers=asked))
        each = (rss_mib(pid) - memory) * 1024 / sessions
        for stream in streams:
            stream.close()
        return each


def _allow_connections() -> None:
    """Let this process and those that it starts have a descriptor for each client."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8192 if hard == resource.RLIM_INFINITY else min(8192, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def measure(size: Size) -> Iterable[Row]:
    """Start with an empty catalog, then again with what was remembered."""
    _allow_connections()
    names = [f"s{number}" for number in range(SERVERS)]
    servers = [f"stdio:{name}:{sys.executable} {CHILD} {name}" for name in names]
    with tempfile.TemporaryDirectory() as folder:
        with side("gateway_process", folder, *servers) as (url, _):
            asyncio.run(_fill(url))
        started = time.perf_counter()
        with side("gateway_process", folder) as (url, pid):
            first = time.perf_counter() - started + asyncio.run(_first_list(url))
            yield Row("first list after a cold start, 20 stdio servers", first, "s", at_most=1.5)
            yield from asyncio.run(_measure(url, pid, size))
