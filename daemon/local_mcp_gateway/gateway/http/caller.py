"""Who waits for the answer to a call, and what it is told and asked before that."""

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
    """The client of one POST: what comes before the answer goes into its response, if that can stream."""

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
        """Return the least severe level of log messages that the client wants."""
        return self._log_level if self._session is None else LEVELS[self._session.level]

    @property
    def client(self) -> object:
        """Return the client's session; without one, no other call is known to be of the same client."""
        return self._session or self

    @property
    def relay(self) -> Relay:
        """Return what takes an answer that is too large to be held."""
        return self._response.relay

    def on_notification(self, method: str, params: bytes) -> None:
        """Send a notification before the answer, or to the session's own stream if this cannot."""
        if not self._accepts(method, params):
            return
        message = jsonrpc.notification(method, params)
        if self._response.streams:
            self._response.push_news(message)
        elif self._session is not None:
            self._session.enqueue(message)

    async def on_request(self, method: str, params: bytes) -> Answer:
        """Ask the client something while its call runs."""
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
    """The caller whose every message goes to its session's stream, whole; questions by way of `ask`."""

    relay = None

    def __init__(self, session: Session, ask: Callable[[bytes], None] | None = None) -> None:
        self.client = self._session = session
        self._ask = ask

    @property
    def capabilities(self) -> bytes:
        """Return what the client has said that it can."""
        return self._session.capabilities

    @property
    def log_level(self) -> str | None:
        """Return the level that the client has set."""
        return LEVELS[self._session.level]

    def on_notification(self, method: str, params: bytes) -> None:
        """Put it into the stream."""
        if self._session.accepts_level(severity_of(method, params)):
            self._session.enqueue(jsonrpc.notification(method, params))

    async def on_request(self, method: str, params: bytes) -> Answer:
        """Ask through the stream."""
        return await self._session.ask(method, params, self._ask)
