"""The client of a call: receives notifications and server requests before the response."""

from __future__ import annotations

from typing import TYPE_CHECKING

from local_mcp_gateway.gateway.clients.sessions import LEVELS, Session, severity_of
from local_mcp_gateway.gateway.protocol import jsonrpc
from local_mcp_gateway.gateway.protocol.jsonrpc import Answer, failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from local_mcp_gateway.gateway.http.response import PostResponse
    from local_mcp_gateway.gateway.upstreams.large_responses import Relay


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


class StreamCaller:
    """A caller whose messages all go to its session's stream, buffered; requests go through `ask`."""

    relay = None

    def __init__(self, session: Session, ask: Callable[[bytes], None] | None = None) -> None:
        self.client = self._session = session
        self._ask = ask

    @property
    def capabilities(self) -> bytes:
        """Return the capabilities that the client declared."""
        return self._session.capabilities

    @property
    def log_level(self) -> str | None:
        """Return the level that the client has set."""
        return LEVELS[self._session.level]

    def on_notification(self, method: str, params: bytes) -> None:
        """Send it on the stream."""
        if self._session.accepts_level(severity_of(method, params)):
            self._session.enqueue(jsonrpc.notification(method, params))

    async def on_request(self, method: str, params: bytes) -> Answer:
        """Send the request on the stream."""
        return await self._session.ask(method, params, self._ask)
