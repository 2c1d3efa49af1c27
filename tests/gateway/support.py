"""A gateway on a real port, real servers behind it, and the official client before it."""

from __future__ import annotations

import asyncio
import json
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import uvicorn
from opentelemetry.trace import Tracer

from local_mcp_gateway.config import Settings
from local_mcp_gateway.database.pool import ConnectionPool
from local_mcp_gateway.gateway.gateway import Gateway
from local_mcp_gateway.gateway.http.app import Application
from local_mcp_gateway.gateway.http.request import Receive, Scope, Send
from local_mcp_gateway.gateway.options import GatewayOptions
from local_mcp_gateway.gateway.protocol.sse import SseParser
from local_mcp_gateway.service.http.server import KEEP_ALIVE_S
from local_mcp_gateway.service.options import gateway_options
from local_mcp_gateway.service.secrets import Keyring, SealedSignIns
from local_mcp_gateway.store import opened_server, queries
from local_mcp_gateway.store.model import (
    Member,
    Prefix,
    ProfileDefinition,
    ServerDefinition,
    ServerKind,
)

REPOSITORY = Path(__file__).parents[2]
SERVERS = Path(__file__).parent / "servers"
DEFAULTS = gateway_options(Settings())
QUICK = replace(
    DEFAULTS, list_timeout_s=20, connect_timeout_s=30, call_timeout_s=20, keepalive_s=60
)


class Reply(aiohttp.ClientResponse):
    """A response whose message is read in either form: on a slow machine an answer comes in a stream."""

    async def json(self, **how: Any) -> Any:
        if self.content_type != "text/event-stream":
            return await super().json(**how)
        events = SseParser(10**9).feed(await self.read())
        return json.loads([event.data for event in events if event.data][-1])


@dataclass
class Running:
    """A served gateway, and everything that it has said so far."""

    gateway: Gateway = field(init=False)
    database: ConnectionPool = field(init=False)
    url: str = field(init=False)
    said: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    stirred: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, and replaced by a new one, whenever the gateway says something or has ended a request."""
    http: aiohttp.ClientSession = field(init=False)

    def emit(self, event: str, /, **fields: Any) -> None:
        self.said.append((event, fields))
        self.stir()

    def stir(self) -> None:
        self.stirred.set()
        self.stirred = asyncio.Event()

    async def until(self, true: Callable[[], object]) -> None:
        """Return once this is so. It is asked again whenever the gateway stirs."""
        with anyio.fail_after(30):
            while not true():
                await self.stirred.wait()

    def find(self, event: str, **wanted: Any) -> dict[str, Any] | None:
        """Return what the gateway has said of this event, if it has."""
        for name, fields in self.said:
            if name == event and wanted.items() <= fields.items():
                return fields
        return None

    async def heard(self, event: str, **wanted: Any) -> dict[str, Any]:
        """Return once the gateway has said this."""
        await self.until(lambda: self.find(event, **wanted))
        found = self.find(event, **wanted)
        assert found is not None
        return found

    async def wrote(self, start: str) -> str:
        """Return the line that a server wrote to its stderr, once there is one that begins so."""

        def line() -> str | None:
            lines = [f["line"] for name, f in self.said if name == "upstream.logged"]
            return next((line for line in lines if line.startswith(start)), None)

        await self.until(line)
        found = line()
        assert found is not None
        return found

    async def heard_after(self, doing: Awaitable[Any], event: str, **wanted: Any) -> dict[str, Any]:
        """Do something, and return once the gateway has said this."""
        await doing
        return await self.heard(event, **wanted)

    async def kept(self, server: str, text: str = "") -> None:
        """Return once the server's lists are in the database, with this text among them."""
        with anyio.fail_after(30):
            while True:
                stirred = self.stirred
                bodies = await self.database.fetch_all(
                    "SELECT c.body FROM mcp_server_catalog_cache c JOIN mcp_servers s"
                    " ON s.id = c.mcp_server_id WHERE s.name = ?",
                    (server,),
                )
                if any(text in body for (body,) in bodies):
                    return
                await stirred.wait()

    async def post(
        self, message: Any, *, path: str = "/mcp", **headers: str
    ) -> aiohttp.ClientResponse:
        """Post one message as curl would; the answer is read."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        accept = {"Accept": "application/json, text/event-stream"}
        base = self.url.removesuffix("/mcp")
        reply = await self.http.post(base + path, json=message, headers={**accept, **names})
        await reply.read()
        return reply


def create_database(path: Path) -> Path:
    """Write a new file with this project's migrations applied."""
    path.write_bytes(_migrated())
    return path


@cache
def _migrated() -> bytes:
    """Return such a file; made in memory, since on a disk each statement would wait for it."""
    with closing(sqlite3.connect(":memory:")) as connection:
        for file in sorted((REPOSITORY / "migrations").glob("*.sql")):
            if not file.name.endswith(".down.sql"):
                connection.executescript(file.read_text())
        return connection.serialize()


@asynccontextmanager
async def serve(app: Application) -> AsyncIterator[str]:
    """Serve an ASGI application with uvicorn on a free port; yield its base URL."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    config = uvicorn.Config(
        app,
        log_level="warning",
        lifespan="off",
        timeout_graceful_shutdown=5,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve([listening]))
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listening.close()


@asynccontextmanager
async def gateway_of(
    tmp_path: Path,
    *servers: ServerDefinition,
    options: GatewayOptions = QUICK,
    prefix: Prefix = Prefix.AUTO,
    tracer: Tracer | None = None,
    keyring: Keyring | None = None,
) -> AsyncIterator[Running]:
    """Serve a gateway whose default profile holds these servers, in this order."""
    path = tmp_path / "gateway.db"
    if not path.exists():
        create_database(path)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(ConnectionPool.open(path))
        known = {server.name for server in await queries.list_servers(database)}
        for server in servers:
            if server.name not in known:
                await queries.add_server(database, server)
        if not await queries.list_profiles(database):
            members = tuple(Member(server.name) for server in servers)
            profile = ProfileDefinition("default", prefix=prefix, members=members)
            await queries.add_profile(database, profile)
        running = Running()
        sign_ins = None if keyring is None else SealedSignIns(database, keyring)
        unseal = opened_server if keyring is None else keyring.open
        opened = Gateway.open(database, options, running.emit, tracer, unseal, sign_ins)
        gateway = await stack.enter_async_context(opened)

        async def stirring(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await gateway.app(scope, receive, send)
            finally:
                running.stir()

        url = await stack.enter_async_context(serve(stirring))
        running.gateway, running.database, running.url = gateway, database, f"{url}/mcp"
        running.http = await stack.enter_async_context(aiohttp.ClientSession(response_class=Reply))
        yield running


def stdio(name: str, script: str, *arguments: str, **changes: Any) -> ServerDefinition:
    """Define one of the test servers as a child."""
    arguments = (str(SERVERS / script), *arguments)
    server = ServerDefinition(name, ServerKind.STDIO, command=sys.executable, args=arguments)
    return replace(server, **changes)


@asynccontextmanager
async def process(
    script: Path, *arguments: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Run a server that prints its URL first; yield it and the URL; kill it afterwards."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, str(script), *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        with anyio.fail_after(30):
            url = (await child.stdout.readline()).decode().strip()
        assert url.startswith("http"), "the server printed its URL"
        yield child, url
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


def http(name: str, url: str, **changes: Any) -> ServerDefinition:
    """Define a server behind a URL."""
    return replace(ServerDefinition(name, ServerKind.HTTP, url=url), **changes)


TWICE = stdio("twice", "twice.py")
