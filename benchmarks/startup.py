"""How long a start takes: the guard in process, `db status`, `serve` to READY and to the first tool list.

Each process is compared with a bare interpreter that imports what it cannot do without, run in turns
with it: the ratio is what our own code costs.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.table import Row, Size
from benchmarks.timing import in_turns, process_ms

REPOSITORY = Path(__file__).parents[1]
ROUNDS = {Size.QUICK: 3, Size.SHORT: 11, Size.LONG: 41}
STATUS_FLOOR = ("sqlite3", "click")
SERVE_FLOOR = ("click", "anyio", "uvicorn", "httptools", "aiosqlite", "structlog", "msgspec")
"""What a start to READY cannot do without; aiohttp, for one, is loaded for the first server over HTTP.

The tests see to it that each process loads all that its floor does.
"""
PROTOCOL = "2025-06-18"
COMMAND = [sys.executable, "-m", "local_mcp_gateway"]


def measure(size: Size) -> Iterable[Row]:
    """Yield the guard alone, then the commands and the gateway as whole processes."""
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "gateway.db"
        env = {**os.environ, "HOME": folder, "DATABASE_PATH": str(database)}
        subprocess.run([*COMMAND, "db", "migrate"], check=True, capture_output=True, env=env)
        add_server(env, folder)
        yield guard_in_process(database, 20 * ROUNDS[size])
        yield from whole_processes(env, ROUNDS[size])


def guard_in_process(database: Path, rounds: int) -> Row:
    """Measure a guard that has nothing to do, beyond opening the file."""
    from local_mcp_gateway.guard import guarded

    def opened() -> float:
        started = time.perf_counter()
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        return (time.perf_counter() - started) * 1000

    def guarded_once() -> float:
        started = time.perf_counter()
        with guarded(database, REPOSITORY / "migrations"):
            return (time.perf_counter() - started) * 1000

    bare, guard = in_turns(rounds, opened, guarded_once)
    note = f"{guard:.1f} ms, opening the file alone {bare:.1f} ms"
    return Row(
        "guard, nothing pending, beyond opening the file", guard - bare, "ms", at_most=15, note=note
    )


def whole_processes(env: dict[str, str], rounds: int) -> Iterable[Row]:
    """Measure whole processes and the bare imports; the quickest of each, as others share the machine."""
    floor, status = in_turns(
        rounds,
        lambda: process_ms(bare(STATUS_FLOOR), env),
        lambda: process_ms([*COMMAND, "db", "status", "--json"], env),
        of=min,
    )
    note = f"{status:.0f} ms, `import {', '.join(STATUS_FLOOR)}` {floor:.0f} ms"
    yield Row("db status / bare imports", status / floor, "×", at_most=2.5, note=note)

    starts: list[tuple[float, float]] = []

    def serve() -> float:
        starts.append(serve_ms(env))
        return starts[-1][0]

    floor, ready = in_turns(rounds, lambda: process_ms(bare(SERVE_FLOOR), env), serve)
    listed = min(listed for _, listed in starts[1:])
    note = f"{ready:.0f} ms, `import {', '.join(SERVE_FLOOR)}` {floor:.0f} ms"
    yield Row("serve to READY / bare imports", ready / floor, "×", at_most=2, note=note)
    note = f"{listed:.0f} ms, the list from the cache"
    yield Row(
        "serve to first tools/list / bare imports", listed / floor, "×", at_most=2.5, note=note
    )


def bare(floor: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-c", f"import {', '.join(floor)}"]


def serve_ms(env: dict[str, str]) -> tuple[float, float]:
    """Start a gateway, ask for its tools, stop it; return ms to READY and to the answer."""
    started = time.perf_counter()
    command = [*COMMAND, "--log-format", "json", "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env) as process:
        assert process.stderr is not None
        url = ""
        for line in process.stderr:
            event = json.loads(line)
            if event["event"] == "gateway.listening":
                url = event["url"].removesuffix("/").removesuffix("/mcp")
            if event["event"] == "service.ready":
                break
        ready = (time.perf_counter() - started) * 1000
        tools = Client(f"{url}/mcp").tools()
        listed = (time.perf_counter() - started) * 1000
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        assert process.wait(30) == 0
    assert tools, "the catalog is empty"
    return ready, listed


class Client:
    """Asks as curl would, without the weight of a client library; in a session from the first line on."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session: dict[str, str] = {}
        client = {"name": "benchmark", "version": "1"}
        self._post("initialize", protocolVersion=PROTOCOL, capabilities={}, clientInfo=client)
        self._session["Mcp-Protocol-Version"] = PROTOCOL

    def tools(self) -> list[str]:
        return [tool["name"] for tool in self._post("tools/list")["tools"]]

    def call(self, tool: str) -> None:
        self._post("tools/call", name=tool, arguments={})

    def _post(self, method: str, **params: object) -> dict[str, Any]:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            **self._session,
        }
        request = urllib.request.Request(self._url, body, headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            if given := answer.headers.get("Mcp-Session-Id"):
                self._session["Mcp-Session-Id"] = given
            text = answer.read().decode()
        lines = [
            line.removeprefix("data:") for line in text.splitlines() if line.startswith("data:")
        ]
        result: dict[str, Any] = json.loads(lines[-1] if lines else text)["result"]
        return result


def add_server(env: dict[str, str], folder: str) -> None:
    """Add one stdio server and let one gateway learn its catalog."""
    command = shutil.which("mcp-server-time", path=f"{Path(sys.executable).parent}:{env['PATH']}")
    assert command, "mcp-server-time is not installed: make setup"
    add = [*COMMAND, "server", "add", "time", "--no-test", "--profile", "default", "--", command]
    subprocess.run(add, check=True, capture_output=True, env=env, cwd=folder)
    subprocess.run([*COMMAND, "server", "test", "time"], check=True, capture_output=True, env=env)
