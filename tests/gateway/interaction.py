"""Run the interaction tests of the official Python SDK with a gateway between client and server.

    python -P tests/gateway/interaction.py SDK LIBRARY REPORT [PYTEST ARGUMENT…]

`SDK` is the folder of its source, `LIBRARY` has what its tests need besides, and `REPORT` gets the result
of each test as JSON. Their fixture `connect` makes a client of a server object, over each transport in
turn. Here that server is served on a real port, or over stdio by a child that relays, and the client is
connected to a gateway before it. What runs in memory directly runs over stdio here.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.message import SessionMessage
from mcp.types import jsonrpc_message_adapter

SDK, LIBRARY, REPORT = (Path(given).resolve() for given in sys.argv[1:4])
sys.path.insert(0, str(SDK))
sys.path.append(str(LIBRARY))
import tests  # noqa: E402  theirs, of the same name as ours

tests.__path__.append(str(Path(__file__).parents[1]))
from local_mcp_gateway.store.model import ServerDefinition, ServerKind  # noqa: E402
from tests.gateway.support import gateway_of, http, serve  # noqa: E402

MODERN: Final = "2026-07-28"
RELAY: Final = """
import socket, sys, threading
wire = socket.socket(socket.AF_UNIX)
wire.connect(sys.argv[1])
def read():
    while data := sys.stdin.buffer.raw.read(65536):
        wire.sendall(data)
    wire.shutdown(socket.SHUT_WR)
threading.Thread(target=read, daemon=True).start()
while data := wire.recv(65536):
    sys.stdout.buffer.raw.write(data)
"""


@asynccontextmanager
async def over_http(server: Any, **how: Any) -> AsyncIterator[ServerDefinition]:
    """Serve it over Streamable HTTP."""
    unprotected = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    app = server.streamable_http_app(transport_security=unprotected, **how)
    async with server.session_manager.run(), serve(app) as url:
        yield http("server", f"{url}/mcp")


@asynccontextmanager
async def over_sse(server: Any) -> AsyncIterator[ServerDefinition]:
    """Serve it over the transport of 2024-11-05."""
    app, _ = import_module("tests.interaction._connect").build_sse_app(server)
    async with serve(app) as url:
        yield http("server", f"{url}/sse", kind=ServerKind.SSE)


@asynccontextmanager
async def over_stdio(server: Any) -> AsyncIterator[ServerDefinition]:
    """Serve it to each child that relays."""
    lowlevel = getattr(server, "_lowlevel_server", server)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received, incoming = anyio.create_memory_object_stream[Any](0)
        outgoing, sent = anyio.create_memory_object_stream[SessionMessage](0)

        async def receive() -> None:
            async with received:
                async for line in reader:
                    message = jsonrpc_message_adapter.validate_json(line)
                    await received.send(SessionMessage(message))

        async def send() -> None:
            async for one in sent:
                text = one.message.model_dump_json(by_alias=True, exclude_unset=True)
                writer.write(text.encode() + b"\n")
                await writer.drain()

        async with incoming, outgoing, sent, asyncio.TaskGroup() as tasks:
            tasks.create_task(receive())
            sending = tasks.create_task(send())
            await lowlevel.run(incoming, outgoing, lowlevel.create_initialization_options())
            sending.cancel()
        writer.close()

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "socket"))
        listening = await asyncio.start_unix_server(talk, path, limit=10**8)
        try:
            arguments = ("-S", "-E", "-c", RELAY, path)
            yield ServerDefinition(
                "server", ServerKind.STDIO, command=sys.executable, args=arguments
            )
        finally:
            listening.close()


@asynccontextmanager
async def through(
    served: Callable[[Any], AbstractAsyncContextManager[ServerDefinition]],
    server: Any,
    *,
    door: str = "mcp",
    spec_version: str = "",
    **how: Any,
) -> AsyncIterator[Client]:
    """Yield a client of a gateway that has this server."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        definition = await stack.enter_async_context(served(server))
        running = await stack.enter_async_context(gateway_of(Path(folder), definition))
        base = running.url.removesuffix("/mcp")
        open_door = sse_client if door == "sse" else streamable_http_client
        mode: Any = MODERN if spec_version == MODERN else "legacy"
        client = Client(open_door(f"{base}/{door}"), mode=mode, **how)
        yield await stack.enter_async_context(client)


THROUGH: Final = {
    "in-memory": partial(through, over_stdio),
    "streamable-http": partial(through, over_http),
    "streamable-http-stateless": partial(through, partial(over_http, stateless_http=True)),
    "sse": partial(through, over_sse, door="sse"),
}


class Plugin:
    """Points `connect` at the gateway, and keeps what became of each test."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}

    @pytest.fixture(scope="session")
    def anyio_backend(self) -> str:
        return "asyncio"

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        import_module("tests.interaction.conftest")._FACTORIES.update(THROUGH)
        items[:] = [item for item in items if "connect" in getattr(item, "fixturenames", ())]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.found[report.nodeid] = report.outcome


def main() -> None:
    """Run the tests that leave it open how they are connected."""
    files = sorted(
        str(file)
        for part in ("lowlevel", "mcpserver")
        for file in (SDK / "tests" / "interaction" / part).glob("test_*.py")
        if "connect: Connect" in file.read_text()
    )
    settings = SDK / "gateway.ini"
    settings.write_text("[pytest]\nmarkers = requirement(id)\n")
    plugin = Plugin()
    options = ("-c", str(settings), "--rootdir", str(SDK), "--confcutdir=tests/interaction")
    without = ("-p", "no:asyncio", "-p", "no:cacheprovider")
    pytest.main([*options, *without, *sys.argv[4:], *files], [plugin])
    REPORT.write_text(json.dumps(plugin.found))


if __name__ == "__main__":
    main()
