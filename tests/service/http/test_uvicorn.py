"""What the service uses of uvicorn, uvloop and watchfiles beyond their documented API.

All are pinned to a minor version. When one of these tests fails after an update, its name says what broke, and its
text what it is needed for. All else about the server is in test_server.py.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import socket
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from local_mcp_gateway.service.http.server import CoalescingProtocol, CoalescingTransport
from tests.harness import DEADLINE_S

REPOSITORY = Path(__file__).parents[3]


@pytest.mark.parametrize("package", ["uvicorn", "uvloop", "watchfiles"])
def test_the_package_is_pinned_to_the_minor_version_that_was_looked_at(package: str) -> None:
    if package == "uvloop":
        pytest.importorskip(package)  # all works without it
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    major, minor, *_ = (int(part) for part in version(package).split("."))
    wanted = f"{package}>={major}.{minor},<{major}.{minor + 1}"
    assert wanted in [requirement.partition(";")[0] for requirement in declared]


@pytest.mark.parametrize("step", ["startup", "main_loop", "shutdown"])
def test_the_server_can_be_driven_step_by_step(step: str) -> None:
    method = getattr(uvicorn.Server, step)
    assert inspect.iscoroutinefunction(method), f"Server.{step}: serve() would take the signals"
    if step != "main_loop":
        assert "sockets" in inspect.signature(method).parameters, "the socket is bound before"


async def no_content(_: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


class Noted(HttpToolsProtocol):
    """uvicorn's protocol, of which the last connection is known."""

    last: Any

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        Noted.last = self


class NotedOurs(Noted, CoalescingProtocol):
    """Ours, of which the last connection is known."""


@asynccontextmanager
async def connected(
    app: Any = no_content, protocol: type[Noted] = Noted
) -> AsyncIterator[tuple[uvicorn.Server, asyncio.StreamReader, asyncio.StreamWriter]]:
    """Yield a server that was begun as the service begins it, and a connection to it."""
    theirs, ours = socket.socketpair()
    config = uvicorn.Config(app, http=protocol, lifespan="off", ws="none", log_config=None)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)  # which only serve() would set
    await server.startup(sockets=[])  # connections are accepted elsewhere
    loop = asyncio.get_running_loop()
    await loop.connect_accepted_socket(
        lambda: protocol(config, server.server_state, server.lifespan.state, loop), ours
    )
    reader, writer = await asyncio.open_connection(sock=theirs)
    with anyio.fail_after(30):
        while not server.server_state.connections:
            await anyio.lowlevel.checkpoint()
    try:
        yield server, reader, writer
    finally:
        writer.close()
        await server.shutdown(sockets=[])


async def get(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    with anyio.fail_after(30):
        return await reader.readuntil(b"\r\n\r\n")


async def test_a_connection_has_no_cycle_before_its_first_request_and_one_after_it() -> None:
    async with connected() as (server, reader, writer):
        connection: Any = Noted.last  # uvicorn declares what is None at first as if it never were
        assert set(server.server_state.connections) == {connection}, "a stop waits for each"
        first = connection.cycle
        assert first is None, "so that a stop lets the first request arrive"
        assert b"204" in await get(reader, writer)
        cycle, scope = connection.cycle, connection.scope
        assert cycle is not None
        assert cycle.scope is scope, "so that the size of a head is known"


async def test_a_request_in_flight_is_a_task_of_the_server() -> None:
    async with connected() as (server, reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n")
        with anyio.fail_after(30):
            while not server.server_state.tasks:
                await anyio.lowlevel.checkpoint()
        for task in server.server_state.tasks:
            assert isinstance(task, asyncio.Task), "a stop cancels them and waits for them"
        writer.write(b"x")
        with anyio.fail_after(30):
            assert b"204" in await reader.readuntil(b"\r\n\r\n")


async def test_a_connection_can_be_refused_and_aborted() -> None:
    async with connected() as (_, reader, __):
        Noted.last.send_400_response("The request head is too large.")
        with anyio.fail_after(30):
            assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        Noted.last.transport.abort()


def test_uvloop_refuses_a_write_to_a_client_that_has_left_and_none_is_tried() -> None:
    failed: list[object] = []

    async def written_after_the_end() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: failed.append(what))
        ours, theirs = socket.socketpair()
        transport, _ = await asyncio.get_running_loop().create_connection(
            asyncio.Protocol, sock=ours
        )
        coalescing = CoalescingTransport(transport)
        transport.abort()
        theirs.close()
        for _ in range(10):
            await asyncio.sleep(0)
        coalescing.write(b"an answer")
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="closed"):
            transport.write(b"x")

    with asyncio.Runner(loop_factory=pytest.importorskip("uvloop").new_event_loop) as runner:
        runner.run(written_after_the_end())
    assert failed == []


async def test_requests_that_come_at_once_are_parsed_as_each_has_its_turn() -> None:
    begun, go = [], anyio.Event()
    paths = [f"/{number}" for number in range(10_000)]

    async def held(scope: Any, receive: Any, send: Any) -> None:
        begun.append(scope["path"])
        await go.wait()
        await no_content(scope, receive, send)

    async with connected(held, NotedOurs) as (_, reader, writer):
        for path in paths:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        with anyio.fail_after(DEADLINE_S):
            while not Noted.last._unparsed:
                await anyio.lowlevel.checkpoint()
            assert len(Noted.last.pipeline) < 300, "else one client fills the memory"
            assert not Noted.last.transport.is_reading()
            go.set()
            for _ in paths:
                assert b"204" in await reader.readuntil(b"\r\n\r\n")
        assert begun == paths


@pytest.mark.asyncio(loop_factories=["uvloop", "asyncio"])
async def test_uvloop_closes_the_descriptor_of_a_pipe_itself_and_asyncio_leaves_it_to_us() -> None:
    """So `_Descriptor` closes none on uvloop: its number may be another file's by then."""
    read, write = os.pipe()
    closed = asyncio.Event()

    class Pipe:
        def fileno(self) -> int:
            return read

        def close(self) -> None:
            closed.set()

    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(asyncio.Protocol, Pipe())
    transport.close()
    await closed.wait()
    os.close(write)
    if isinstance(loop, asyncio.SelectorEventLoop):
        os.close(read)
    else:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(read)


def test_the_watcher_fails_by_a_name_that_is_known() -> None:
    from watchfiles import _rust_notify

    from local_mcp_gateway.service.file_watcher import _WATCHFILES_ERRORS

    assert _rust_notify.WatchfilesRustInternalError.__name__ in _WATCHFILES_ERRORS, (
        "or dev mode ends with it"
    )
