"""Servers of other make for the suite: those with which the official SDKs test themselves."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Final

import anyio
import pytest

from tests.conformance.sides import DIRECT, OVER_HTTP
from tests.conformance.suite import find_node
from tests.fetched import program, source
from tests.gateway.support import gateway_of, http

SDK: Final = "3924de99df834302d89f5997a1b64ca268282284"
TYPESCRIPT: Final = (
    "https://raw.githubusercontent.com/modelcontextprotocol/typescript-sdk/"
    f"{SDK}/test/conformance/src/everythingServer.ts"
)
LIBRARIES: Final = (
    "@modelcontextprotocol/server@2.4.0",
    "@modelcontextprotocol/node@2.1.2",
    "@modelcontextprotocol/express@2.0.2",
    "express@5.3.0",
    "cors@2.8.6",
    "zod@4.6.7",
)
LISTENS: Final = b"running on http"
"""What uvicorn and the server of the TypeScript SDK say once they listen."""


@dataclass(frozen=True, slots=True)
class Make:
    """How a server is started: it listens on the port in `PORT`, or the one that ends its command."""

    command: tuple[str, ...]
    folder: Path
    env: dict[str, str] = field(default_factory=dict)


def python(config: pytest.Config) -> Make:
    """Return the everything-server of the Python SDK."""
    sdk = source(config, "mcp-source", f"mcp=={version('mcp')}")
    folder = sdk / "examples" / "servers" / "everything-server"
    command = (sys.executable, "-m", "mcp_everything_server", "--port")
    return Make(command, folder, {"PYTHONPATH": str(folder)})


def typescript(config: pytest.Config) -> Make:
    """Return the conformance server of the TypeScript SDK; Node.js strips its types."""
    folder = program(config, "typescript-conformance", TYPESCRIPT, "server.ts", LIBRARIES)
    return Make((find_node(), "server.ts"), folder)


MAKES: Final[Mapping[str, Callable[[pytest.Config], Make]]] = {
    "Python SDK": python,
    "TypeScript SDK": typescript,
}


@asynccontextmanager
async def _serving(make: Make) -> AsyncIterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = (*make.command, port) if make.command[-1] == "--port" else make.command
    child = await asyncio.create_subprocess_exec(
        *command, cwd=make.folder, env={**os.environ, **make.env, "PORT": port},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert child.stdout is not None
    listens = asyncio.Event()
    reading = asyncio.create_task(_read(child.stdout, listens))
    try:
        with anyio.fail_after(60):
            await listens.wait()
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        child.kill()
        await child.wait()
        await reading


async def _read(told: asyncio.StreamReader, listens: asyncio.Event) -> None:
    """Read all that a server says, or a full pipe would hold it up."""
    async for line in told:
        if LISTENS in line:
            listens.set()


@asynccontextmanager
async def sides_of(make: Make, tmp_path: Path) -> AsyncIterator[Mapping[str, str]]:
    """Yield the URLs of such a server and of a gateway before another one."""
    async with AsyncExitStack() as stack:
        direct = await stack.enter_async_context(_serving(make))
        behind = http("everything", await stack.enter_async_context(_serving(make)))
        running = await stack.enter_async_context(gateway_of(tmp_path, behind))
        await running.post({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
        yield {DIRECT: direct, OVER_HTTP: running.url}
