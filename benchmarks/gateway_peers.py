"""The gateway compared with other gateways, each as its documentation has it, on the same servers in turns.

Only with `--peers` or by name: they are fetched from their registries, once, into a cache folder of
their own (`LMG_PEERS_CACHE`, by default under ~/.cache), and are no dependency of this project.
`serve` is the whole program here, with guard, database and the log of calls.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks import contextforge
from benchmarks.gateway import HEADERS, HELLO, ROOT, Load, side
from benchmarks.table import Row, Size

CACHE = Path(os.environ.get("LMG_PEERS_CACHE", "~/.cache/local-mcp-gateway/peers")).expanduser()
PYTHON = {
    "fastmcp": "fastmcp==4.2.3",
    "mcp-proxy": "mcp-proxy==0.13.0",
    "contextforge": "mcp-contextforge-gateway==1.0.7.post20260921",
}
NODE = ("supergateway@4.0.0", "mcp-proxy@6.7.19")
ROUNDS = {Size.QUICK: 1, Size.SHORT: 2, Size.LONG: 5}
CALLS = {Size.QUICK: 40, Size.SHORT: 100, Size.LONG: 400}
CHILD = [sys.executable, str(ROOT / "benchmarks" / "child.py"), "x"]
CALL = b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"%s","arguments":{"text":"hello"}}}'
START_S = 60


@dataclass(frozen=True)
class Peer:
    """One gateway: the command that starts it on a port, and the path at which it serves."""

    name: str
    command: list[str]
    path: str = "/mcp"
    env: dict[str, str] | None = None
    tool: str = "echo"
    cwd: Path | None = None


@dataclass
class Found:
    """What was measured of one gateway."""

    cold_s: float
    p50_ms: list[float]
    rates: list[float]
    rss_mib: float = 0


class ToolLoad(Load):
    """A load that calls one tool by its name."""

    def __init__(self, url: str, http: aiohttp.ClientSession, tool: str) -> None:
        super().__init__(url, http)
        self._tool = tool.encode()

    async def call(self) -> None:
        data = CALL % (next(self._ids), self._tool)
        async with self._http.post(self._url, data=data, headers=self._headers) as reply:
            body = await reply.read()
            assert b"hello" in body, body


def installed() -> Path:
    """Fetch the peers, once."""
    for name, package in PYTHON.items():
        venv = CACHE / name
        if not (venv / package).exists():
            print(f"installing {package} into {venv}", file=sys.stderr)
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
            pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", package]
            subprocess.run(pip, check=True, stderr=subprocess.DEVNULL)
            (venv / package).touch()
    node = CACHE / "node"
    stamp = node / " ".join(NODE)
    if shutil.which("npm") and not stamp.exists():
        print(f"installing {', '.join(NODE)} into {node}", file=sys.stderr)
        node.mkdir(parents=True, exist_ok=True)
        (node / "package.json").write_text('{"private": true}')
        subprocess.run(
            ["npm", "install", "--silent", "--no-audit", "--no-fund", *NODE], cwd=node, check=True
        )
        stamp.touch()
    return node / "node_modules" / ".bin"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def ours(folder: Path, name: str, *definition: str, tool: str = "echo") -> Peer:
    """Define `serve`, with one server in its database."""
    command = [sys.executable, "-m", "local_mcp_gateway"]
    home = folder / name
    home.mkdir()
    env = {**os.environ, "HOME": str(home)}
    add = [*command, "server", "add", "x", "--no-test", *definition]
    subprocess.run(add, env=env, check=True, capture_output=True)
    return Peer(name, [*command, "serve", "--port", "PORT"], env=env, tool=tool)


@contextmanager
def started(peer: Peer) -> Iterator[tuple[str, int, float]]:
    """Start it; yield its URL, its pid, and the seconds until it had answered a first tools/list."""
    port = free_port()
    command = [part.replace("PORT", str(port)) for part in peer.command]
    url = f"http://127.0.0.1:{port}{peer.path}"
    began = time.perf_counter()
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    where: dict[str, Any] = {"env": peer.env, "cwd": peer.cwd, "start_new_session": True}
    with subprocess.Popen(command, **where, **quiet) as process:
        try:
            _wait_until_listed(url, process)
            yield url, process.pid, time.perf_counter() - began
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)


def _wait_until_listed(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        with suppress(urllib.error.URLError, ConnectionError, AssertionError):
            session = _post(url, HELLO, {})[1]
            headers = {"Mcp-Session-Id": session} if session else {}
            _post(url, {"jsonrpc": "2.0", "method": "notifications/initialized"}, headers)
            listed = {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}}
            assert b"echo" in _post(url, listed, headers)[0]
            return
        time.sleep(0.02)
    raise RuntimeError(f"{process.args!r} does not serve")


def _post(url: str, message: Any, headers: dict[str, str]) -> tuple[bytes, str | None]:
    request = urllib.request.Request(url, json.dumps(message).encode(), {**HEADERS, **headers})
    with urllib.request.urlopen(request, timeout=START_S) as reply:
        return reply.read(), reply.headers["mcp-session-id"]


def tree_mib(pid: int) -> float:
    """Return the resident memory of a gateway without the server behind it, wrappers included."""
    total = 0.0
    waiting = [pid]
    while waiting:
        folder = Path(f"/proc/{waiting.pop()}")
        if CHILD[1].encode() in (folder / "cmdline").read_bytes().split(b"\0")[1:2]:
            continue
        total += int((folder / "statm").read_text().split()[1]) * 4096 / 2**20
        for task in (folder / "task").iterdir():
            waiting += map(int, (task / "children").read_text().split())
    return total


async def _measure(
    sides: dict[str, tuple[str, int, float]], tools: dict[str, str], size: Size
) -> dict[str, Found]:
    found = {name: Found(cold, [], []) for name, (_, _, cold) in sides.items()}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        loads = {name: ToolLoad(url, http, tools[name]) for name, (url, _, _) in sides.items()}
        for load in loads.values():
            await load.open()
        for _ in range(ROUNDS[size]):
            for name, load in loads.items():
                found[name].p50_ms.append(await load.p50_ms(CALLS[size]))
                found[name].rates.append(await load.rate(CALLS[size] * 2))
    for name, (_, pid, _) in sides.items():
        found[name].rss_mib = tree_mib(pid)
    return found


def _group(what: str, peers: list[Peer], size: Size, direct: str | None) -> Iterable[Row]:
    """Yield the rows of gateways that stand before the same server; the first one is ours."""
    with ExitStack() as stack:
        sides = {peer.name: stack.enter_context(started(peer)) for peer in peers}
        if direct is not None:
            sides["direct"] = (direct, os.getpid(), 0)
        tools = {"direct": "echo", **{peer.name: peer.tool for peer in peers}}
        found = asyncio.run(_measure(sides, tools, size))
    base = statistics.median(found.pop("direct").p50_ms) if direct is not None else 0.0
    p50 = {name: statistics.median(one.p50_ms) - base for name, one in found.items()}
    rate = {name: statistics.median(one.rates) for name, one in found.items()}
    own, *others = found
    added = "added p50" if direct is not None else "p50"
    for name in others:
        notes = [
            f"{added} {p50[name]:.1f} / {p50[own]:.1f} ms",
            f"{rate[own]:.0f} / {rate[name]:.0f} calls/s",
            f"{found[name].rss_mib:.0f} / {found[own].rss_mib:.0f} MiB",
            f"{found[name].cold_s:.1f} / {found[own].cold_s:.1f} s",
        ]
        ratios = (
            (added, p50[name] / p50[own]),
            ("calls/s at 32, ours / theirs", rate[own] / rate[name]),
            ("memory", found[name].rss_mib / found[own].rss_mib),
            ("cold start to first list", found[name].cold_s / found[own].cold_s),
        )
        for (measured, ratio), note in zip(ratios, notes, strict=True):
            yield Row(f"{name} ({what}): {measured}", ratio, "×", None, 1, note)


def measure(size: Size) -> Iterable[Row]:
    """Compare over HTTP and over stdio. A ratio above 1 is in our favour."""
    programs = installed()
    with tempfile.TemporaryDirectory() as name, side("echo_server") as (url, _):
        folder = Path(name)
        fastmcp = str(CACHE / "fastmcp" / "bin" / "python")
        proxy = str(ROOT / "benchmarks" / "fastmcp_proxy.py")
        http = [
            ours(folder, "ours-http", "--url", url),
            Peer("fastmcp", [fastmcp, proxy, url, "PORT"]),
        ]
        program = CACHE / "contextforge" / "bin" / "mcpgateway"
        home = folder / "contextforge"
        command, env = contextforge.prepared(program, home, free_port(), url)
        http += [Peer("ContextForge", command, "/mcp/", env, "x-echo", home)]
        yield from _group("HTTP", http, size, url)
        stdio = [
            ours(folder, "ours-stdio", "--", *CHILD, tool="x_echo"),
            Peer(
                "mcp-proxy of PyPI",
                [str(CACHE / "mcp-proxy" / "bin" / "mcp-proxy"), "--port", "PORT", "--", *CHILD],
                tool="x_echo",
            ),
        ]
        if programs.exists():
            stdio += [
                Peer(
                    "supergateway",
                    [
                        str(programs / "supergateway"), "--stdio", " ".join(CHILD), "--port", "PORT",
                        "--outputTransport", "streamableHttp", "--stateful", "--logLevel", "none",
                    ],
                    tool="x_echo",
                ),
                Peer(
                    "mcp-proxy of npm",
                    [
                        str(programs / "mcp-proxy"), "--port", "PORT", "--host", "127.0.0.1",
                        "--server", "stream", "--", *CHILD,
                    ],
                    tool="x_echo",
                ),
            ]  # fmt: skip
        yield from _group("stdio", stdio, size, None)
