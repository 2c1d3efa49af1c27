"""Run uvicorn step by step, with an exact start, a graceful drain and its warnings in our log.

uvicorn's own `serve()` would install signal handlers and report its start only by a flag to poll. Its
public steps (startup, main_loop, shutdown) give a drain with a deadline. Connections to the socket, which is
bound already, are accepted here. Checked against uvicorn 0.54.

Its HTTP protocol has no limit on the request head and writes each part of a response by itself: ours has a
limit, parses one request of a connection after the other, and joins the writes of one turn of the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import anyio
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from local_mcp_gateway.log import Throttle
from local_mcp_gateway.service.http.listening_socket import Acceptor

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
    from typing import Self

    from local_mcp_gateway.log import Emit

    Receive = Callable[[], Coroutine[Any, Any, dict[str, Any]]]
    Send = Callable[[dict[str, Any]], Awaitable[None]]
    Application = Callable[[Mapping[str, Any], Receive, Send], Awaitable[None]]


MOST_HEADER_BYTES: Final = 1024 * 1024
"""Limit for the request line and headers together. Bodies are limited where they are read."""


class HeaderLimitProtocol(HttpToolsProtocol):
    """Close a connection whose request head exceeds the limit."""

    _head_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Take received bytes. A request has its own cycle once its head is complete."""
        super().data_received(data)
        if getattr(self.cycle, "scope", None) is self.scope:
            self._head_bytes = 0
            return
        self._head_bytes += len(data)
        if self._head_bytes > MOST_HEADER_BYTES and not self.transport.is_closing():
            self.send_400_response("The request head is too large.")


AT_A_TIME_BYTES: Final = 8 * 1024
"""So much is parsed at a time: by far not all that one read may bring."""


class OneByOneProtocol(HeaderLimitProtocol):
    """Parse of many requests that came at once the next ones only when they have their turn.

    uvicorn parses all that it has read, and reads on after each response. So a client that waits for no response
    could hold the event loop, and fill the memory, with what it is going to ask.
    """

    _unparsed = b""

    def data_received(self, data: bytes) -> None:
        """Take received bytes; keep what comes after a request that waits for its turn."""
        if self._unparsed:
            self._unparsed += data
            self.flow.pause_reading()
        else:
            self._parse(data)

    def on_response_complete(self) -> None:
        """Begin the next request, and parse what comes after it."""
        super().on_response_complete()
        if self.pipeline:
            self.flow.pause_reading()
        elif self._unparsed:
            unparsed, self._unparsed = self._unparsed, b""
            self._parse(unparsed)

    def _parse(self, data: bytes) -> None:
        for start in range(0, len(data), AT_A_TIME_BYTES):
            if self.transport.is_closing():
                return
            if self.pipeline:
                self._unparsed = data[start:]
                self.flow.pause_reading()
                return
            super().data_received(data[start : start + AT_A_TIME_BYTES])


MOST_COALESCED_BYTES: Final = 64 * 1024
"""Most that is queued: a large response is sent as it comes, so that back-pressure works."""


class CoalescingTransport:
    """A transport that joins the writes of one event loop iteration."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._waiting: list[bytes] = []
        self._bytes = 0

    def write(self, data: bytes) -> None:
        """Queue bytes to be sent in this iteration."""
        if not self._waiting:
            self._loop.call_soon(self.flush)
        self._waiting.append(data)
        self._bytes += len(data)
        if self._bytes > MOST_COALESCED_BYTES:
            self.flush()

    def flush(self) -> None:
        """Send what is queued; nothing to a client that has left, which uvloop would raise."""
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        if waiting and not self._transport.is_closing():
            self._transport.write(waiting[0] if len(waiting) == 1 else b"".join(waiting))

    def close(self) -> None:
        """Send what is queued and close."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        """Delegate everything else to the real transport."""
        return getattr(self._transport, name)


class CoalescingProtocol(OneByOneProtocol):
    """uvicorn's protocol on a coalescing transport."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wrap the transport of a new connection."""
        super().connection_made(cast("asyncio.Transport", CoalescingTransport(transport)))


_UNAVAILABLE = {
    "type": "http.response.start",
    "status": 503,
    "headers": [(b"content-type", b"application/json"), (b"connection", b"close")],
}
_STOPPING = (
    b'{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"The gateway is stopping."}}'
)
_LISTENS = (b"mcp-method", b"subscriptions/listen")


class DrainingApp:
    """An ASGI application whose open streams can be ended."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """End the streams that only wait for events, now and from now on."""
        self._draining.set()

    def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> Awaitable[None]:
        """Pass a request on; to a waiting stream, the drain looks like its client disconnecting."""
        waits = scope["type"] == "http" and only_waits(scope)
        serve = self._serve_until_drain if waits else self._serve_until_cancelled
        return serve(scope, receive, send)

    async def _serve_until_cancelled(
        self, scope: Mapping[str, Any], receive: Receive, send: Send
    ) -> None:
        try:
            await self._application(scope, receive, send)
        except asyncio.CancelledError:
            if not self._draining.is_set():
                raise
            # uvicorn would log a traceback and answer 500.
            body = _STOPPING
            try:
                await send(_UNAVAILABLE)
            except RuntimeError:
                body = b""  # the response has begun, so end it
            with suppress(RuntimeError):
                await send({"type": "http.response.body", "body": body})

    async def _serve_until_drain(
        self, scope: Mapping[str, Any], receive: Receive, send: Send
    ) -> None:
        began = ended = False

        async def send_marked(message: dict[str, Any]) -> None:
            nonlocal began, ended
            began = True
            ended = message["type"] == "http.response.body" and not message.get("more_body")
            await send(message)

        async def receive_or_disconnect() -> dict[str, Any]:
            return await self._first(receive)

        await self._application(scope, receive_or_disconnect, send_marked)
        if began and not ended:
            # The application sees a disconnect; the real client gets a complete response.
            await send({"type": "http.response.body", "body": b""})

    async def _first(self, receive: Receive) -> dict[str, Any]:
        async with asyncio.TaskGroup() as tasks:
            hearing = tasks.create_task(receive())
            draining = tasks.create_task(self._draining.wait())
            await asyncio.wait((hearing, draining), return_when=asyncio.FIRST_COMPLETED)
            heard = hearing.result() if hearing.done() else {"type": "http.disconnect"}
            hearing.cancel()
            draining.cancel()
        return heard


def only_waits(scope: Mapping[str, Any]) -> bool:
    """Tell whether a request is a stream that never ends by itself."""
    return scope["method"] == "GET" or _LISTENS in scope["headers"]


KEEP_ALIVE_S = 120
"""How long an idle connection is kept: longer than clients keep theirs (httpx 5 s, aiohttp 15, Go 90), so
that none sends a request into a connection that is just being closed."""
ARRIVAL_S = 0.5
"""Most that a stop waits for the first request of a connection that was accepted already."""

LAST_S = 2.0
"""Most that a stop waits for the responses to cancelled calls."""


@asynccontextmanager
async def serving(
    app: Any,
    listener: socket.socket,
    *,
    emit: Emit,
    drain_timeout_s: float,
    second_signal: Callable[[], Awaitable[None]],
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[None]:
    """Answer requests inside the block; on exit finish those in progress, until the deadline.

    `second_signal` returns when the user does not want to wait for the deadline.
    """
    drainable = DrainingApp(app)
    config = uvicorn.Config(
        drainable,
        loop="none",
        http=CoalescingProtocol,
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
    await server.startup(sockets=[])  # it listens on none of its own
    async with anyio.create_task_group() as tasks:
        loop = asyncio.get_running_loop()
        connect = partial(_connect, server, tls)
        acceptor = Acceptor(loop, listener, partial(tasks.start_soon, connect), emit)
        acceptor.start()
        tasks.start_soon(server.main_loop)
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                server.should_exit = True
                async with anyio.create_task_group() as stopping:
                    stopping.start_soon(_force, server, second_signal)
                    drainable.drain()
                    acceptor.stop()
                    await _let_arrive(server)
                    await server.shutdown(sockets=[listener])
                    stopping.cancel_scope.cancel()
                await _end(server)
                tasks.cancel_scope.cancel()  # handshakes that no client goes on with


async def _connect(
    server: uvicorn.Server, tls: ssl.SSLContext | None, connection: socket.socket
) -> None:
    """Give an accepted connection its protocol."""
    loop, config = asyncio.get_running_loop(), server.config

    def protocol() -> CoalescingProtocol:
        return CoalescingProtocol(config, server.server_state, server.lifespan.state, loop)

    with suppress(OSError):  # the client has gone, or does not speak TLS
        await loop.connect_accepted_socket(protocol, connection, ssl=tls)


async def _let_arrive(server: uvicorn.Server) -> None:
    """Give connections that were just accepted time to send their request.

    uvicorn's shutdown closes every idle connection, which resets a client that has just connected. With a
    socket that systemd holds, connections not yet accepted wait for the next process.
    """
    await anyio.sleep(0.01)
    with anyio.move_on_after(ARRIVAL_S):
        # `cycle` is the request of a connection, the last one when it is idle, None before the first.
        # uvicorn has no event for it, hence the loop.
        while any(c.cycle is None for c in server.server_state.connections):  # type: ignore[union-attr]  # noqa: ASYNC110
            await anyio.sleep(0.005)


async def _end(server: uvicorn.Server) -> None:
    """Cancel the requests in progress and wait for them: afterwards nothing uses the database.

    uvicorn cancels at the deadline without waiting; when forced it does neither. From Python 3.12 on it
    waits even then for every connection, so none may be left open.
    """
    left = set(server.server_state.tasks)
    for request in left:
        request.cancel()
    if left:
        await asyncio.wait(left, timeout=LAST_S)
    for connection in tuple(server.server_state.connections):
        if connection.transport is not None:
            connection.transport.abort()


async def _force(server: uvicorn.Server, second_signal: Callable[[], Awaitable[None]]) -> None:
    await second_signal()
    server.force_exit = True
    await _end(server)


class LibraryWarnings(logging.Handler):
    """Turn the `logging` records of uvicorn, asyncio and other libraries into events of our log.

    A repeated warning is throttled: a library may repeat one two thousand times a second.
    """

    def __init__(self, emit: Emit) -> None:
        super().__init__(logging.WARNING)
        self._event = emit
        self._warnings = Throttle()
        """By library and the first line of the message."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record; one that cannot be formatted is reported on stderr and raises nothing."""
        try:
            message = record.getMessage()
            kind = record.name, message.partition("\n")[0]
            repeated = self._warnings.repeated(kind, time.monotonic())
            if repeated is None:
                return
            fields: dict[str, object] = {"library": record.name, "message": message}
            if repeated:
                fields["repeated"] = repeated
            if record.exc_info:
                fields["traceback"] = logging.Formatter().formatException(record.exc_info)
            self._event("library.warned", **fields)
        except Exception:  # noqa: BLE001  str() of what a library logs may raise anything
            self.handleError(record)

    def __enter__(self) -> Self:
        """Attach to every library's logger."""
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        """Detach again."""
        logging.getLogger().removeHandler(self)
