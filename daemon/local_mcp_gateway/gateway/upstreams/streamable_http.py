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
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.gateway.protocol import Answer, Envelope, jsonrpc, versions
from local_mcp_gateway.gateway.upstreams.connection import (
    SILENT,
    Call,
    ConnectionBase,
    Events,
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
from local_mcp_gateway.gateway.upstreams.http_transport import (
    DENIED,
    GONE,
    HttpTransport,
    message_of,
    names_session,
)
from local_mcp_gateway.gateway.upstreams.server_requests import PESTERING, Ask, ServerRequests
from local_mcp_gateway.gateway.upstreams.subscriptions import TAKEN, Subscriptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiohttp

    from local_mcp_gateway.store import ServerDefinition


POST_ONLY_S: Final = 30.0
"""How long a server may take to accept a message that has no response."""
INITIALIZED_S: Final = 5.0
"""How long `notifications/initialized` may take: a server that never accepts it has received it, and serves."""
DISCOVER_S: Final = 10.0
"""How long a server may be silent on `server/discover` before it is asked for a handshake."""
PING_S: Final = 10.0
RENEW_S: Final = 30.0
"""How long a session may take to be made again when no call waits for it; calls wait meanwhile."""
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


class HttpConnection(ConnectionBase):
    """A server that has responded to its first request; `async with HttpConnection.open(…)`."""

    def __init__(
        self,
        definition: ServerDefinition,
        http: aiohttp.ClientSession,
        events: Events,
        max_message_bytes: int,
    ) -> None:
        super().__init__(events)
        self._wire = HttpTransport(
            definition, http, max_message_bytes, self.disconnect, self._arrived, events.via
        )
        self._session: dict[str, str] | None = None
        self._handshaking = asyncio.Lock()
        self._stateless_only = False
        self._forgotten = False
        self._next = 0
        self._subscriptions = Subscriptions(self._post_modern, events, self.tasks, self._wire.check)
        self._server_requests = ServerRequests(self.tasks, events.tokens, self.notify)
        self._modern_headers = self._wire.headers({"MCP-Protocol-Version": versions.NEWEST_MODERN})

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
            if (session := connection._session) is not None:
                connection._session = None
                await connection._wire.end_session(session)

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
        async with self._wire.post_request(body, headers, call) as reply:
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
            headers = self._wire.headers({})

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
            self.tasks.start(self._follow_stream, headers)
            if self._forgotten:
                self._forgotten = False
                self._events.session_renewed()

    async def _post_session(self, call: Call, *, again: bool = False) -> Answer:
        """Send a request in our session. Raises SessionExpired when that is gone.

        With `again`, in a new session, a status alone does not mean that.
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
            async with self._wire.post_request(body, headers, call) as reply:
                answer = await self._wire.answer_of(reply, call, session)
                if answer.failed and names_session(answer, reply.status):
                    await self._check_session(session, message_of(answer))
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
                return answer.failed and names_session(answer, reply.status)
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

    async def _follow_stream(self, headers: dict[str, str]) -> None:
        """Keep the GET stream of our session open while the session lasts; renew that if the stream is refused."""
        if await self._wire.follow_stream(headers, lambda: self._is_current(headers)):
            await self._renew(headers)

    def _is_current(self, session: dict[str, str]) -> bool:
        return self._session is session and not self._lost.done()

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
