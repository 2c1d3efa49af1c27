"""The response to one POST: a JSON body, or an event stream once something precedes the result.

Nothing is sent until that is decided. In the common case the result comes first and is one JSON body,
sent without a task of its own. The first message before it, or `keepalive_s` of silence, switches to a
stream; from then on a writer task sends what `queue` holds. A watcher notices a client that
disconnects; it starts late so that quick calls do not pay for it. It cancels the call, unless a stream
had begun that the client can resume (`EventStream`). A result too large to buffer is streamed, in
either form, as fast as the client reads it.

`PostCaller` is the client as the call sees it: what servers send it before the result goes in here.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.gateway.catalog import HEADER_PREFIX
from local_mcp_gateway.gateway.clients import (
    LEVELS,
    LONGEST_NAME,
    EventStream,
    Session,
    missed_warning,
    name_of_client,
    severity_of,
)
from local_mcp_gateway.gateway.http.request import JSON_HEADER, HttpRequest
from local_mcp_gateway.gateway.protocol import Answer, failure, jsonrpc, response, sse, versions
from local_mcp_gateway.gateway.routing import ClientRequest
from local_mcp_gateway.gateway.tasks import TaskScope, Timer, TimerWheel

if TYPE_CHECKING:
    from collections.abc import Callable

    from local_mcp_gateway.gateway.protocol import Envelope, ModernEnvelope
    from local_mcp_gateway.gateway.routing import Cancellation
    from local_mcp_gateway.gateway.upstreams import Relay, StreamedResponse

MOST_WAITING_BYTES: Final = 8 * 1024 * 1024
"""How many bytes wait for a client before its notifications are dropped and counted."""
WATCH_AFTER_S: Final = 0.25
PRIMED_SINCE: Final = "2025-11-25"
"""The first revision whose clients accept an empty event that only has an id."""
BRIDGE: Final = "local-mcp-gateway-bridge"
"""The header of `local-mcp-gateway stdio`, whose client cannot send headers."""
STREAM_HEADERS: Final = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


class PostResponse(Timer):
    """Writes the response. The task that runs the call enters `tasks` and calls `close`.

    Its timer fires for calls that are not quick: first to watch for a disconnect, then after
    `keepalive_s` of silence.
    """

    left = False
    _event_stream: EventStream | None = None
    _relaying = False
    _waiting_bytes = 0
    _lost = 0
    _queue: asyncio.Queue[bytes | None] | None = None
    _writer: asyncio.Future[None] | None = None
    _watcher: asyncio.Future[None] | None = None

    def __init__(
        self,
        request: HttpRequest,
        identity: bytes,
        session: Session | None,
        cancellation: Cancellation,
        *,
        keepalive_s: float,
        timers: TimerWheel,
        failed: Callable[[Exception], None],
    ) -> None:
        self.tasks = TaskScope(failed)
        """The tasks that write and watch the response."""
        self.streams = request.streams
        """Whether messages can be sent before the result."""
        self._request = request
        self._identity = identity
        self._session = session
        self._cancellation = cancellation
        self._keepalive_s = keepalive_s
        self._timers = timers
        timers.set(self, WATCH_AFTER_S)

    def push_news(self, message: bytes) -> None:
        """Send a message before the result; drop and count it if the client does not read."""
        if self._waiting_bytes > MOST_WAITING_BYTES:
            self._lost += 1
        else:
            self.push(message)

    def push(self, message: bytes) -> None:
        """Send a message before the result; this switches to a stream."""
        if self._relaying:
            return  # the result is being sent, and nothing comes after it
        self._commit()
        assert self._queue is not None, "committed"
        event = self._event(message)
        self._waiting_bytes += len(event)
        self._queue.put_nowait(event)

    async def relay(self, large: StreamedResponse) -> int:
        """Stream a result as it arrives; return its size. It is not kept for a resuming client.

        If it is cut off, so is the response: then `finish` has nothing left to send.
        """
        self._relaying = True
        self._timers.unset(self)
        if self._watcher is None:
            self._watcher = self.tasks.start(self._until_left)
        size = 0
        if self._queue is None:
            headers = [JSON_HEADER, *self._request.extra]
            await self._request.send(
                {"type": "http.response.start", "status": 200, "headers": headers}
            )
        else:
            self._queue.put_nowait(self._opening())
        async for part in large.parts(self._identity):
            size += len(part)
            await self._pass(part)
        await self._passed()
        return size

    async def finish(self, body: bytes, status: int = 200) -> None:
        """Send the result, which ends the response."""
        self._stop_watching()
        if self._relaying:
            return
        if self._queue is None:
            await self._request.reply(status, body)
            return
        if self._lost:
            self._queue.put_nowait(self._event(missed_warning(self._lost)))
        self._queue.put_nowait(self._event(body))
        await self._end_stream(self._queue)

    async def finish_unanswered(self) -> None:
        """End the response without a result: the client has cancelled its request."""
        self._stop_watching()
        if self.left or self._relaying:
            return
        if self._queue is None:
            await self._request.empty(202)
            return
        await self._end_stream(self._queue)

    async def _end_stream(self, queue: asyncio.Queue[bytes | None]) -> None:
        """Let the writer finish what waits in the queue, and end the stream."""
        queue.put_nowait(None)
        if self._event_stream is not None:
            self._event_stream.end()
        assert self._writer is not None, "committed"
        await self._writer

    def close(self) -> None:
        """End it, with or without a result: the client may have disconnected."""
        self._stop_watching()
        if self._event_stream is not None:
            self._event_stream.end()

    def _opening(self) -> bytes:
        """Begin the event of a large result; a client that resumes later gets an error in its place."""
        if self._event_stream is None:
            return sse.opening()
        text = "The response was too large to keep for a reconnect: send the request again"
        gone = response(self._identity, failure(jsonrpc.INTERNAL_ERROR, text))
        return sse.opening(self._event_stream.keep(gone))

    async def _pass(self, part: bytes) -> None:
        if self._queue is None:
            await self._request.send(
                {"type": "http.response.body", "body": part, "more_body": True}
            )
        else:
            self._queue.put_nowait(sse.continued(part))
            await self._queue.join()

    async def _passed(self) -> None:
        self._stop_watching()  # a complete response looks like a client that has disconnected
        if self._queue is None:
            await self._request.send({"type": "http.response.body", "body": b""})
        else:
            assert self._writer is not None, "committed"
            self._queue.put_nowait(sse.END)
            self._queue.put_nowait(None)
            await self._writer

    def _commit(self) -> None:
        if self._queue is None:
            self._queue = asyncio.Queue()
            if self._session is not None:
                self._event_stream = self._session.event_stream(self._identity)
                if self._session.version >= PRIMED_SINCE:
                    self._queue.put_nowait(self._event_stream.priming())
            self._writer = self.tasks.start(self._write, self._queue)

    async def _write(self, queue: asyncio.Queue[bytes | None]) -> None:
        send = self._request.send
        headers = [*STREAM_HEADERS, *self._request.extra]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        while True:
            try:
                async with asyncio.timeout(None if self._relaying else self._keepalive_s):
                    chunk = await queue.get()
            except TimeoutError:
                if not self._relaying:
                    await send(
                        {"type": "http.response.body", "body": sse.KEEPALIVE, "more_body": True}
                    )
                continue
            last = chunk is None
            await send({"type": "http.response.body", "body": chunk or b"", "more_body": not last})
            queue.task_done()
            self._waiting_bytes = 0 if queue.empty() else self._waiting_bytes - len(chunk or b"")
            if last:
                return

    def fire(self) -> None:
        """Start watching the client, or switch to a stream and keep it alive."""
        if self._watcher is not None:
            self._commit()
            return
        self._watcher = self.tasks.start(self._until_left)
        if self.streams:
            self._timers.set(self, self._keepalive_s)

    async def _until_left(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        if self._event_stream is not None and not self._relaying:
            self._event_stream.on_disconnect(self._give_up)
        else:
            self._give_up()

    def _give_up(self) -> None:
        self.left = True
        self._cancellation.ask()

    def _event(self, message: bytes) -> bytes:
        return (
            sse.render(message) if self._event_stream is None else self._event_stream.add(message)
        )

    def _stop_watching(self) -> None:
        self._timers.unset(self)
        watcher, self._watcher = self._watcher, None  # its exception would keep us alive
        if watcher is not None:
            watcher.cancel()


class PostCaller:
    """The client of one POST: messages before the response go into it, if it can stream."""

    __slots__ = ("_log_level", "_response", "_session", "capabilities")

    def __init__(
        self,
        response: PostResponse,
        session: Session | None,
        capabilities: bytes,
        log_level: str | None,
    ) -> None:
        self.capabilities = capabilities
        self._response = response
        self._session = session
        self._log_level = log_level

    @property
    def log_level(self) -> str | None:
        """Return the minimum severity of log messages that the client wants."""
        return self._log_level if self._session is None else LEVELS[self._session.level]

    @property
    def client(self) -> object:
        """Return the client's session; without one, no other call is known to be of the same client."""
        return self._session or self

    @property
    def relay(self) -> Relay:
        """Return the function that streams a large response."""
        return self._response.relay

    def on_notification(self, method: str, params: bytes) -> None:
        """Send a notification before the response, or to the session's GET stream if this cannot stream."""
        if not self._accepts(method, params):
            return
        message = jsonrpc.notification(method, params)
        if self._response.streams:
            self._response.push_news(message)
        elif self._session is not None:
            self._session.enqueue(message)

    async def on_request(self, method: str, params: bytes) -> Answer:
        """Send the client a request while its call runs."""
        if self._session is None:
            return failure(jsonrpc.METHOD_NOT_FOUND, f"This client cannot be asked {method}")
        push = self._response.push if self._response.streams else None
        return await self._session.ask(method, params, push)

    def _accepts(self, method: str, params: bytes) -> bool:
        if method != "notifications/message":
            return True
        level = self.log_level
        return level in LEVELS and severity_of(method, params) >= LEVELS.index(level)


def client_request(
    profile: str,
    message: Envelope,
    http_request: HttpRequest,
    session: Session | None,
    opened: ModernEnvelope | None,
    reply: PostResponse,
) -> ClientRequest:
    """Return the request of a POST, whose caller is answered through `reply`.

    `opened` is the envelope of a stateless one; without it the request is of the handshake protocol, in a
    session or without one.
    """
    method, params, identity = message.method, bytes(message.params), bytes(message.id)
    if opened is None:
        capabilities = b"{}" if session is None else session.capabilities
        caller = PostCaller(reply, session, capabilities, "debug")
        return ClientRequest(
            profile,
            method,
            params,
            caller,
            session,
            identity=identity,
            token=http_request.token,
            token_id=http_request.token_id,
            client=(_client_name(http_request) if session is None else session.client_name) or None,
        )
    caller = PostCaller(reply, None, opened.capabilities, opened.log_level)
    headers = tuple((k, v) for k, v in http_request.headers.items() if k.startswith(HEADER_PREFIX))
    repeats = BRIDGE not in http_request.headers
    return ClientRequest(
        profile,
        method,
        params,
        caller,
        None,
        True,
        headers,
        repeats,
        identity=identity,
        token=http_request.token,
        token_id=http_request.token_id,
        client=_named(opened.client) or _client_name(http_request) or None,
    )


@lru_cache(64)
def _named(info: bytes) -> str:
    """Return what a stateless client calls itself."""
    try:
        return name_of_client(jsonrpc.decode_any(info)) if info else ""
    except jsonrpc.MALFORMED:
        return ""


def _client_name(http_request: HttpRequest) -> str:
    if http_request.own:
        return str(versions.GATEWAY_INFO["name"])
    return http_request.headers.get("user-agent", "")[:LONGEST_NAME]
