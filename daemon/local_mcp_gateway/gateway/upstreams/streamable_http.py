"""Connect to a Streamable HTTP server with the handshake or the stateless protocol.

A stateless server gets each request as a POST of its own. With a handshake server all clients share
one session, so request ids are ours, and a GET stream carries what belongs to no call. A server that
speaks both gets each request in the protocol of the client that makes it; the first client that needs
a handshake session opens it. Any answer but a valid one to `server/discover` means that the server
wants a handshake.

A 404 or 410 means that the session is gone and the request was not processed. Servers say it in other
ways too; whenever a request is refused, a ping in the same session tells whether that still exists. A
request that was refused with its session is sent again once, in a new one.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

import aiohttp
from yarl import URL

from local_mcp_gateway.gateway.protocol import (
    Answer,
    Envelope,
    EventTooLarge,
    SseParser,
    hops,
    jsonrpc,
    versions,
)
from local_mcp_gateway.gateway.upstreams.backoff import ReconnectBackoff
from local_mcp_gateway.gateway.upstreams.connection import (
    CLIENT_HEADERS,
    SILENT,
    Call,
    Connection,
    ConnectionBase,
    Events,
    FairShare,
    HttpRefusal,
    Identity,
    SessionExpired,
    SignInNeeded,
    UpstreamDisconnected,
    pong,
)
from local_mcp_gateway.gateway.upstreams.handshake import (
    identity_of_discover,
    identity_of_initialize,
    initialize,
)
from local_mcp_gateway.gateway.upstreams.http_request import (
    UNAUTHORIZED,
    chunks_of,
    reason_of,
    send,
)
from local_mcp_gateway.gateway.upstreams.http_transport import STREAM, HttpTransport
from local_mcp_gateway.gateway.upstreams.legacy_sse import SseConnection
from local_mcp_gateway.gateway.upstreams.network import client_session
from local_mcp_gateway.gateway.upstreams.server_requests import PESTERING, Ask, ServerRequests
from local_mcp_gateway.gateway.upstreams.subscriptions import TAKEN, Subscriptions
from local_mcp_gateway.log import beginning
from local_mcp_gateway.store import ServerDefinition, ServerKind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence


ACCEPT: Final = "application/json, text/event-stream"
JSON: Final = "application/json"
POST_ONLY_S: Final = 30.0
"""How long a server may take to accept a message that has no response."""
INITIALIZED_S: Final = 5.0
"""How long `notifications/initialized` may take: a server that never accepts it has received it, and serves."""
DISCOVER_S: Final = 10.0
"""How long a server may be silent on `server/discover` before it is asked for a handshake."""
PING_S: Final = 10.0
RENEW_S: Final = 30.0
"""How long a session may take to be made again when no call waits for it; calls wait meanwhile."""
SSE_S: Final = 10.0
"""How long a URL that takes no POST may take to turn out to be of the older transport."""
SHOWN: Final = 200
OF_NO_CALL: Final = frozenset(
    {
        "notifications/tools/list_changed",
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
        "notifications/resources/updated",
    }
)
"""Notifications that belong to no call, in whichever stream a server sends them."""
BUSY: Final = 429
GONE: Final = frozenset({404, 410})
"""HTTP statuses that say that a session is gone."""
DENIED: Final = frozenset({400, 401, 403}) | GONE
"""HTTP statuses of a session that is gone, if a ping gets them too."""


@asynccontextmanager
async def open_url(
    definition: ServerDefinition,
    events: Events,
    *,
    max_message_bytes: int,
    middlewares: Sequence[aiohttp.ClientMiddlewareType] = (),
) -> AsyncIterator[Connection]:
    """Connect to a URL; one that takes no POST is tried as a server of the older HTTP+SSE transport.

    The connection has its own pool and cookies, as one client has. `middlewares` authorize its requests.
    """
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(client_session(definition, middlewares))
        old = SseConnection.open(definition, http, events, max_message_bytes=max_message_bytes)
        if definition.kind is ServerKind.SSE:
            yield await stack.enter_async_context(old)
            return
        new = HttpConnection.open(definition, http, events, max_message_bytes=max_message_bytes)
        try:
            connection: Connection = await stack.enter_async_context(new)
        except HttpRefusal as refused:
            if not 400 <= refused.status < 500 or refused.status == UNAUTHORIZED:
                raise
            try:
                async with asyncio.timeout(SSE_S):
                    connection = await stack.enter_async_context(old)
            except (UpstreamDisconnected, TimeoutError):
                raise refused from None
            events.stderr_line("its URL speaks the older HTTP+SSE transport")
        yield connection


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
        self._client_headers = definition.client_headers
        self._http = http
        self._wire = HttpTransport(
            definition, http, max_message_bytes, self.disconnect, self._arrived, events.via
        )
        self._limit = max_message_bytes
        self._session: dict[str, str] | None = None
        self._handshaking = asyncio.Lock()
        self._stateless_only = False
        self._forgotten = False
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
        """Try the stateless protocol first; a server that answers anything else gets a handshake."""
        identity = None
        unauthorized: SignInNeeded | None = None
        try:
            async with asyncio.timeout(DISCOVER_S):
                identity = await self._discover()
        except TimeoutError:
            pass
        except SignInNeeded as needed:
            unauthorized = needed
        except UpstreamDisconnected as lost:
            if lost.unsent:
                raise
        if identity is None:
            try:
                await self._handshake()
            except UpstreamDisconnected as lost:
                raise unauthorized or lost from None  # it may know no handshake
        else:
            self.identity = identity
            self._subscriptions.begin()

    async def _discover(self) -> Identity | None:
        discover = Call("server/discover", versions.to_modern(b""), SILENT, modern=True)
        return identity_of_discover(await self._post_modern(discover))

    async def request(self, call: Call) -> Answer:
        """Forward one request, in the protocol of its client where the server speaks both."""
        if self._lost.done():
            raise UpstreamDisconnected(self._lost.result(), unsent=True)
        silent = call.modern or call.caller is SILENT
        if self.identity.modern and (silent or not await self._speaks_handshake()):
            if call.method in TAKEN:
                return await self._subscriptions.take(call)
            try:
                return await self._post_modern(call)
            except HttpRefusal:
                await self._lose_if_useless()
                raise
        try:
            return await self._post_session(call)
        except SessionExpired:
            return await self._repeat(call)

    async def _repeat(self, call: Call) -> Answer:
        """Send a request again in a new session; lose the connection if there can be none."""
        try:
            return await self._post_session(call, again=True)
        except UpstreamDisconnected as lost:
            refused = lost.refused if isinstance(lost, SessionExpired) else lost
            if self._session is None:
                self._lose(refused or lost)
            if isinstance(refused, SignInNeeded):
                raise refused from None
            raise UpstreamDisconnected(lost.reason) from None

    def _lose(self, lost: UpstreamDisconnected) -> None:
        """Lose the connection for this reason, which may be that a person has to sign in."""
        if isinstance(lost, SignInNeeded):
            self.sign_in = lost
        self.disconnect(lost.reason)

    async def _lose_if_useless(self) -> None:
        """Lose the connection to a stateless server that refuses everything."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PING_S):
                try:
                    await self._discover()
                except UpstreamDisconnected as lost:
                    self._lose(lost)

    async def keeps_sessions(self) -> bool:
        """Return whether it opens a session for each client that makes a handshake; make one to find out."""
        if self.identity.keeps is None:
            self.identity.keeps = await self._speaks_handshake() and bool(self.identity.keeps)
            self._events.identity_updated()
        return self.identity.keeps

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
        if self._client_headers:
            headers = self._with_client_headers(call, headers)
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
            headers = self._headers({})

            async def send_initialize(call: Call) -> Answer:
                params = call.prepared(b'"initialize"')
                body = jsonrpc.request(call.identity, call.method, params)
                async with self._wire.post_request(body, headers) as reply:
                    answer = await self._wire.answer_of(reply, call)
                    if (session := reply.headers.get("Mcp-Session-Id")) is not None:
                        headers["Mcp-Session-Id"] = session.strip()
                    return answer

            answer = await initialize(send_initialize, self.introduction())
            identity = identity_of_initialize(answer)
            identity.keeps = "Mcp-Session-Id" in headers
            headers["MCP-Protocol-Version"] = identity.version
            self._session = headers
            if not self.identity.modern:
                self.identity = identity
            elif self.identity.keeps != identity.keeps:
                self.identity.keeps = identity.keeps
                self._events.identity_updated()
            ready = jsonrpc.notification("notifications/initialized")
            await self._post_only(ready, INITIALIZED_S)
            self.tasks.start(self._get_stream, headers)
            if self._forgotten:
                self._forgotten = False
                self._events.session_renewed()

    async def _post_session(self, call: Call, *, again: bool = False) -> Answer:
        """Send a request in our session. Raises SessionExpired when that is gone.

        With `again`, in a new session, a status alone is no evidence.
        """
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
            if self._client_headers:
                headers = self._with_client_headers(call, headers)
            async with self._wire.post_request(body, headers) as reply:
                answer = await self._wire.answer_of(reply, call, session)
                if answer.failed and _names_session(answer, reply.status):
                    await self._check_session(session, _message(answer))
                return answer
        except HttpRefusal as refused:
            sure = refused.status in GONE and "Mcp-Session-Id" in session and not again
            await self._check_session(session, refused.reason, refused, sure=sure)
            raise
        except asyncio.CancelledError:
            reason = b'{"requestId":' + identity + b',"reason":"cancelled by the client"}'
            message = jsonrpc.notification("notifications/cancelled", reason)
            self.tasks.start(self._post_only, message)
            raise
        finally:
            if self._server_requests.open:
                await self._server_requests.release(call)

    async def _check_session(
        self,
        session: dict[str, str],
        reason: str,
        refused: HttpRefusal | None = None,
        *,
        sure: bool = False,
    ) -> None:
        """Raise SessionExpired if the server refuses a ping in this session as well.

        A server that answers nothing but HTTP errors loses the connection.
        """
        async with self._handshaking:
            if self._session is session and not sure:
                sure = await self._refuses_ping(session)
            if self._session is session and not sure:
                return
            if self._session is session:  # or another call has noticed it
                self._session, self._forgotten = None, True
                self._events.stderr_line("the session was lost and is made again")
        raise SessionExpired(reason, refused)

    async def _refuses_ping(self, session: dict[str, str]) -> bool:
        ping = Call("ping", b"", SILENT)
        params = ping.prepared(b'"ping"')
        body = jsonrpc.request(ping.identity, ping.method, params)
        try:
            async with asyncio.timeout(PING_S), self._wire.post_request(body, session) as reply:
                answer = await self._wire.answer_of(reply, ping, session)
                return answer.failed and _names_session(answer, reply.status)
        except HttpRefusal as refused:
            if refused.status in DENIED:
                return True
            if refused.status != BUSY:
                self.disconnect(refused.reason)
        except UpstreamDisconnected as lost:
            self.disconnect(lost.reason)
        except TimeoutError:
            pass
        return False

    async def _post_only(self, message: bytes, patience_s: float = POST_ONLY_S) -> None:
        """Post a message without a response; the next call notices a server that does not take it."""
        with suppress(UpstreamDisconnected, TimeoutError):
            async with (
                asyncio.timeout(patience_s),
                self._wire.post_request(message, self._session or {}),
            ):
                pass

    async def _get_stream(self, headers: dict[str, str]) -> None:
        """Keep the GET stream of our session open while the session lasts; a server need not offer one.

        A server may end it at any time, and say when to reconnect.
        """
        last: str | None = None
        opened = False
        pace = ReconnectBackoff()
        while self._session is headers and not self._lost.done():
            asked = {**headers, "Accept": STREAM, hops.HEADER: self._events.via()}
            if last is not None:
                asked["Last-Event-ID"] = last
            try:
                async with await send(self._http, "GET", self._url, asked) as reply:
                    if reply.status != 200 or not reply.content_type.startswith(STREAM):
                        if opened or reply.status == UNAUTHORIZED:
                            self.tasks.start(self._renew, headers)
                        return
                    opened = True
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

    async def _renew(self, session: dict[str, str]) -> None:
        """Make our session again if the server has forgotten it: what clients watch is in it.

        The connection is lost with a session that cannot be made again.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(RENEW_S):
                try:
                    await self._check_session(session, "its stream is refused")
                except SessionExpired:
                    try:
                        await self._handshake()
                    except UpstreamDisconnected as lost:
                        self._lose(lost)

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
            ask = pong if message.method == "ping" else self._asking(call)
            if not self._server_requests.take(message, call, ask, self._post_only):
                self.disconnect(PESTERING)
        elif message.method == "notifications/cancelled":
            self._server_requests.called_off(bytes(message.params))
        elif message.method:
            clients = call is not None and call.caller.client is not None
            if call is None or (clients and message.method in OF_NO_CALL):
                self._events.on_notification(message.method, bytes(message.params))
            else:
                call.on_notification(message.method, bytes(message.params))

    def _asking(self, call: Call | None) -> Ask:
        """Return what answers a request that arrived with this call, or with none."""
        if call is None or call.caller is SILENT:
            return self._events.on_request
        return lambda method, params: self._events.on_request(
            method, params, (call.caller,), sure=True
        )

    def _with_client_headers(self, call: Call, headers: dict[str, str]) -> dict[str, str]:
        """Return the headers of a client's call, with those that it takes over from its request."""
        given = {} if call.caller.client is None else CLIENT_HEADERS.get({})
        wanted = {name.lower() for name in self._client_headers}
        taken = {name: given[name] for name in wanted.intersection(given)}
        return {**{name: v for name, v in headers.items() if name.lower() not in taken}, **taken}

    def _headers(self, extra: dict[str, str]) -> dict[str, str]:
        return {"Accept": ACCEPT, "Content-Type": JSON, **extra, **self._configured}


def _names_session(answer: Answer, status: int) -> bool:
    """Return whether an error may mean that the server does not know our session."""
    if versions.error_code(answer) == jsonrpc.METHOD_NOT_FOUND:
        return False
    return b"session" in bytes(answer.body).lower() or status in DENIED - {400}


def _message(answer: Answer) -> str:
    return beginning(jsonrpc.printable(jsonrpc.member(answer.body, "message").strip(b'"')), SHOWN)
