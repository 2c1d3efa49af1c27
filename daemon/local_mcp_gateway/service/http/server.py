"""The HTTP server: uvicorn, driven step by step instead of by its own `serve()`.

`serve()` would take over the signals and say "started" only by a flag to poll. Its public steps
(startup, main_loop, shutdown) give what the composition root needs: an exact moment of listening, on a
socket that is already bound, and a drain with a deadline. Checked against uvicorn 0.54.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import uvicorn

from local_mcp_gateway.service.http.drain import Drainable
from local_mcp_gateway.service.http.one_write import OneWriteProtocol

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Awaitable, Callable
    from typing import Self

    from local_mcp_gateway.log import Emit


KEEP_ALIVE_S = 120
"""How long an idle connection is kept: longer than clients keep theirs (httpx 5 s, aiohttp 15, Go 90), so
that none sends a request into a connection that is just being closed."""
ARRIVAL_S = 0.5
"""Most that a stop waits for the first request of a connection that was accepted already."""

LAST_S = 2.0
"""Most that a stop waits for the answers to calls that it has cancelled."""


@asynccontextmanager
async def serving(
    app: Any,
    listener: socket.socket,
    *,
    drain_timeout_s: float,
    insisted: Callable[[], Awaitable[None]],
) -> AsyncIterator[None]:
    """Answer requests inside the block; at its end finish those in flight, until the deadline.

    `insisted` returns when somebody does not want to wait for the deadline.
    """
    drainable = Drainable(app)
    config = uvicorn.Config(
        drainable,
        loop="none",
        http=OneWriteProtocol,
        interface="asgi3",
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=drain_timeout_s,  # type: ignore[arg-type]  # asyncio takes a float
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listener])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.main_loop)
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                server.should_exit = True
                async with anyio.create_task_group() as stopping:
                    stopping.start_soon(_force, server, insisted)
                    drainable.drain()
                    await _let_arrive(server)
                    await server.shutdown(sockets=[listener])
                    stopping.cancel_scope.cancel()
                await _end(server)


async def _let_arrive(server: uvicorn.Server) -> None:
    """Accept no more, but give connections that were just accepted time to send their request.

    uvicorn's shutdown closes every connection without a request in flight, which resets a client that
    connected a moment ago. With a socket that systemd holds, those not accepted yet are not lost: they
    wait for the next process.
    """
    loop = asyncio.get_running_loop()
    for listening in server.servers:
        # Not close(): asyncio then drops connections whose accept is still on its way through the loop.
        for sock in listening.sockets:
            loop.remove_reader(sock.fileno())
    await anyio.sleep(0.01)
    with anyio.move_on_after(ARRIVAL_S):
        # `cycle` is the request of a connection, the last one when it is idle, None before the first.
        # uvicorn has no event for it, hence the loop.
        while any(c.cycle is None for c in server.server_state.connections):  # type: ignore[union-attr]  # noqa: ASYNC110
            await anyio.sleep(0.005)


async def _end(server: uvicorn.Server) -> None:
    """Cancel what is in flight still, and wait for its answer: nothing uses the database after us.

    uvicorn cancels at the deadline and waits for nothing; when it is forced it does neither. From Python
    3.12 on it waits even then for every connection, so none is left open.
    """
    left = set(server.server_state.tasks)
    for request in left:
        request.cancel()
    if left:
        await asyncio.wait(left, timeout=LAST_S)
    for connection in tuple(server.server_state.connections):
        if connection.transport is not None:
            connection.transport.abort()


async def _force(server: uvicorn.Server, insisted: Callable[[], Awaitable[None]]) -> None:
    await insisted()
    server.force_exit = True
    await _end(server)


class LibraryWarnings(logging.Handler):
    """What uvicorn, asyncio and others log through `logging`, as events of our one log."""

    def __init__(self, emit: Emit) -> None:
        super().__init__(logging.WARNING)
        self._event = emit

    def emit(self, record: logging.LogRecord) -> None:
        """Report one record; a broken one never reaches back into the library."""
        try:
            fields: dict[str, object] = {"library": record.name, "message": record.getMessage()}
            if record.exc_info:
                fields["traceback"] = logging.Formatter().formatException(record.exc_info)
            self._event("library.warned", **fields)
        except Exception:  # noqa: BLE001  the contract of logging.Handler
            self.handleError(record)

    def __enter__(self) -> Self:
        """Listen to every library."""
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        """Listen no more."""
        logging.getLogger().removeHandler(self)
