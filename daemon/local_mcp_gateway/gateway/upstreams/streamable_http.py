"""Connect to a Streamable HTTP server with the handshake or the stateless protocol.

A stateless server gets each request as a POST of its own. With a handshake server all clients share
one session, so request ids are ours, and a GET stream carries what belongs to no call. A server that
speaks both gets each request in the protocol of the client that makes it; the first client that needs
a handshake session opens it. A 404 means that the session is gone and the request was not processed,
so the request is sent again once in a new session.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

import aiohttp
from yarl import URL

from local_mcp_gateway.gateway.protocol import hops, jsonrpc, versions
from local_mcp_gateway.gateway.protocol.sse import EventTooLarge, SseParser
from local_mcp_gateway.gateway.upstreams.backoff import ReconnectBackoff
from local_mcp_gateway.gateway.upstreams.connection import (
    INITIALIZE_PARAMS,
    SILENT,
    Call,
    ConnectionBase,
    Events,
    FairShare,
    SessionExpired,
    UpstreamDisconnected,
    identity_of_discover,
    identity_of_initialize,
    pong,
)
from local_mcp_gateway.gateway.upstreams.http_transport import (
    STREAM,
    HttpTransport,
    chunks_of,
    reason_of,
    send,
)
from local_mcp_gateway.gateway.upstreams.server_requests import PESTERING, ServerRequests
from local_mcp_gateway.gateway.upstreams.subscriptions import TAKEN, Subscriptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from local_mcp_gateway.gateway.protocol.jsonrpc import Answer, Envelope
    from local_mcp_gateway.store.model import ServerDefinition

ACCEPT: Final = "application/json, text/event-stream"
JSON: Final = "application/json"
POST_ONLY_S: Final = 30.0
"""How long a server may take to accept a message that has no response."""


class HttpConnection(ConnectionBase):
    """A server that has responded to its first request; `async with HttpConnection.open(…)`."""

    def __init__(
        self,
        definition: ServerDefinition,
        http: aiohttp.ClientSession,
        events: Events,
        max_message_bytes: int,
    ) -> None:
        assert definition.url is not None, "an HTTP server has a URL"
        super().__init__(events)
        self._url = URL(definition.url)
        self._configured = dict(definition.headers)
        self._http = http
        self._wire = HttpTransport(
            definition.url, http, max_message_bytes, self.disconnect, self._arrived, events.way
        )
        self._limit = max_message_bytes
        self._session: dict[str, str] | None = None
        self._handshaking = asyncio.Lock()
        self._stateless_only = False
        self._next = 0
        self._subscriptions = Subscriptions(self._post_modern, events, self.tasks, self._check)
        self._server_requests = ServerRequests(self.tasks, events.tokens, self.notify)
        self._modern_headers = self._headers({"MCP-Protocol-Version": versions.NEWEST_MODERN})

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        definition: ServerDefinition,
        http: aiohttp.ClientSession,
        events: Events,
        *,
        max_message_bytes: int,
    ) -> AsyncIterator[HttpConnection]:
        """Find out which protocol the server speaks; on exit our session at the server is ended."""
        connection = cls(definition, http, events, max_message_bytes)
        try:
            async with connection.tasks:
                try:
                    await connection._meet()
                    yield connection
                finally:
                    connection.disconnect("it was stopped")
        finally:
            await connection._end_session()

    async def _meet(self) -> None:
        """Try the stateless protocol first."""
        discover = Call("server/discover", versions.to_modern(b""), SILENT, modern=True)
        identity = identity_of_discover(await self._post_modern(discover))
        if identity is None:
            await self._handshake()
        else:
            self.identity = identity
            self._subscriptions.begin()

    async def request(self, call: Call) -> Answer:
        """Forward one request, in the protocol of its client where the server speaks both."""
        if self._lost.done():
            raise UpstreamDisconnected(self._lost.result(), unsent=True)
        silent = call.modern or call.caller is SILENT
        if self.identity.modern and (silent or not await self._speaks_handshake()):
            if call.method in TAKEN:
                return await self._subscriptions.take(call)
            return await self._post_modern(call)
        try:
            return await self._post_session(call)
        except SessionExpired:
            await self._handshake()
            return await self._post_session(call)

    async def notify(self, method: str, params: bytes) -> None:
        """Send one notification in our session; a stateless server takes none."""
        if self._session is not None:
            await self._post_only(jsonrpc.notification(method, params))

    async def _end_session(self) -> None:
        """End our session at the server, as far as it responds."""
        if self._session is not None and "Mcp-Session-Id" in self._session:
            headers, self._session = self._session, None
            with suppress(aiohttp.ClientError, TimeoutError, OSError, UpstreamDisconnected):
                async with (
                    asyncio.timeout(1),
                    await send(self._http, "DELETE", self._url, headers),
                ):
                    pass

    # --- stateless protocol ---------------------------------------------------------------------

    async def _post_modern(self, call: Call) -> Answer:
        """Send one self-contained request; cancelling it closes the connection, which cancels it."""
        self._next += 1
        identity = b"%d" % self._next
        params = call.prepared(identity)
        call.served_modern = True
        if not call.modern:
            params = versions.to_modern(params, call.caller.capabilities, call.caller.log_level)
        method = versions.encode_header(call.method)
        headers = {**self._modern_headers, "Mcp-Method": method, **dict(call.headers)}
        if call.key is not None:
            headers["Mcp-Name"] = versions.encode_header(call.key)
        body = jsonrpc.request(identity, call.method, params)
        async with self._wire.post_request(body, headers) as reply:
            return await self._wire.answer_of(reply, call)

    # --- handshake protocol ---------------------------------------------------------------------

    async def _speaks_handshake(self) -> bool:
        if self._session is None and not self._stateless_only:
            try:
                await self._handshake()
            except UpstreamDisconnected:
                self._stateless_only = True
        return self._session is not None

    async def _handshake(self) -> None:
        async with self._handshaking:
            if self._session is not None:
                return
            hello = Call("initialize", INITIALIZE_PARAMS, SILENT)
            params = hello.prepared(b'"hello"')
            body = jsonrpc.request(hello.identity, hello.method, params)
            headers = self._headers({})
            async with self._wire.post_request(body, headers) as reply:
                answer = await self._wire.answer_of(reply, hello)
                identity = identity_of_initialize(answer)
                if (session := reply.headers.get("Mcp-Session-Id")) is not None:
                    headers["Mcp-Session-Id"] = session
            headers["MCP-Protocol-Version"] = identity.version
            self._session = headers
            if not self.identity.modern:
                self.identity = identity
            await self._post_only(jsonrpc.notification("notifications/initialized"))
            self.tasks.start(self._get_stream, headers)

    async def _post_session(self, call: Call) -> Answer:
        if self._session is None:
            await self._handshake()
        assert self._session is not None, "the handshake made a session"
        self._next += 1
        identity = b"%d" % self._next
        params = call.prepared(identity)
        call.served_modern = False
        if call.modern:
            params = versions.to_handshake(params)
        try:
            body = jsonrpc.request(identity, call.method, params)
            session = self._session
            headers = {**session, **dict(call.headers)} if call.headers else session
            async with self._wire.post_request(body, headers) as reply:
                return await self._wire.answer_of(reply, call, session)
        except SessionExpired:
            if self._session is session:  # or another call has opened a new one
                self._session = None
                self._events.stderr_line("the session was lost and is made again")
            raise
        except asyncio.CancelledError:
            reason = b'{"requestId":' + identity + b',"reason":"cancelled by the client"}'
            message = jsonrpc.notification("notifications/cancelled", reason)
            self.tasks.start(self._post_only, message)
            raise
        finally:
            if self._server_requests.open:
                await self._server_requests.release(call)

    async def _post_only(self, message: bytes) -> None:
        """Post a message without a response; the next call notices a server that does not take it."""
        with suppress(UpstreamDisconnected, TimeoutError):
            async with (
                asyncio.timeout(POST_ONLY_S),
                self._wire.post_request(message, self._session or {}),
            ):
                pass

    async def _get_stream(self, headers: dict[str, str]) -> None:
        """Keep the GET stream of our session open while the session lasts; a server need not offer one.

        A server may end it at any time, and say when to reconnect.
        """
        last: str | None = None
        pace = ReconnectBackoff()
        while self._session is headers and not self._lost.done():
            asked = {**headers, "Accept": STREAM, hops.HEADER: self._events.way()}
            if last is not None:
                asked["Last-Event-ID"] = last
            try:
                async with await send(self._http, "GET", self._url, asked) as reply:
                    if reply.status != 200 or not reply.content_type.startswith(STREAM):
                        return
                    parser, turn = SseParser(self._limit), FairShare()
                    async for chunk in chunks_of(reply):
                        turn.begin()
                        for event in parser.steps(chunk):
                            if event is not None:
                                last = event.id or last
                                pace.heard(event.retry_ms)
                                self._streamed(event.data)
                            await turn.rest()
            except (aiohttp.ClientError, OSError, EventTooLarge, UpstreamDisconnected):
                await self._check()
            await asyncio.sleep(pace.pause_s())

    async def _check(self) -> None:
        """After a broken stream, check that the server accepts connections; else lose the connection."""
        await asyncio.sleep(0.2)
        try:
            async with (
                asyncio.timeout(10),
                self._http.get(self._url, headers={"Accept": JSON}, allow_redirects=False),
            ):
                return
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self.disconnect(reason_of(error))

    def _streamed(self, data: bytes) -> None:
        with suppress(*jsonrpc.MALFORMED):
            for message in jsonrpc.messages_in(jsonrpc.readable(data)):
                self._arrived(message, None)

    # --- both protocols -------------------------------------------------------------------------

    def _arrived(self, message: Envelope, call: Call | None) -> None:
        """Process a server's notification or request, from the stream of a call or the GET stream."""
        if message.is_request:
            ask = self._events.on_request if call is None else call.caller.on_request
            ask = pong if message.method == "ping" else ask
            if not self._server_requests.take(message, call, ask, self._post_only):
                self.disconnect(PESTERING)
        elif message.method == "notifications/cancelled":
            self._server_requests.called_off(bytes(message.params))
        elif message.method:
            notified = self._events.on_notification if call is None else call.on_notification
            notified(message.method, bytes(message.params))

    def _headers(self, extra: dict[str, str]) -> dict[str, str]:
        return {"Accept": ACCEPT, "Content-Type": JSON, **extra, **self._configured}
