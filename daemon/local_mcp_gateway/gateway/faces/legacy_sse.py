"""The face of 2024-11-05: everything comes down one stream, each message goes up as a POST.

`GET /sse` (or `/sse/NAME`) opens the stream, whose first event names where to post. The session lives
as long as its stream.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from local_mcp_gateway.gateway.clients.mail import Mail
from local_mcp_gateway.gateway.clients.sessions import LEVELS, severity_of
from local_mcp_gateway.gateway.faces.streams import stream
from local_mcp_gateway.gateway.protocol import envelope, sse
from local_mcp_gateway.gateway.protocol.envelope import Answer, failure, response
from local_mcp_gateway.gateway.relay.request import Request

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.clients.sessions import Session
    from local_mcp_gateway.gateway.faces.visit import Visit
    from local_mcp_gateway.gateway.protocol.envelope import Envelope
    from local_mcp_gateway.gateway.relay.hub import Hub
    from local_mcp_gateway.gateway.upstreams.call import Caller


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

    def notified(self, method: str, params: bytes) -> None:
        """Put it into the stream."""
        if self._session.hears(severity_of(method, params)):
            self._session.offer(envelope.notification(method, params))

    async def asked(self, method: str, params: bytes) -> Answer:
        """Ask through the stream."""
        return await self._session.ask(method, params, self._ask)


async def serve_sse(hub: Hub, profile: str, root: str, visit: Visit) -> None:
    """Serve the stream of one client until it leaves."""
    session = hub.sessions.open(profile, b"")
    session.streams = 1
    mail = session.mail = Mail(
        hub.options.max_message_bytes, session.stir, lambda: hub.sessions.close(session)
    )
    endpoint = f"{root}/messages/{session.id}".encode()
    first: list[bytes] = [sse.render(endpoint, event=b"endpoint")]

    async def following() -> bytes | None:
        if first:
            return first.pop()
        while not (waiting := [body for _, body in session.take()] + mail.take()):
            if session.ended:
                return None
            await session.arrived()
        session.outbox.forget(session.taken)  # it cannot come back for them
        return b"".join(sse.render(body) for body in waiting)

    try:
        await stream(visit, following, hub.options.keepalive_s)
    finally:
        hub.sessions.close(session)


def take(hub: Hub, session: Session, mail: Mail, message: Envelope) -> None:
    """Take a posted message; what it is answered with goes to the stream."""
    if message.method == "initialize" and message.is_request:
        try:
            session.introduce(bytes(message.params))
            answer = hub.hello(session)
        except envelope.MALFORMED as error:
            answer = failure(envelope.INVALID_PARAMS, f"Invalid params: {error}")
        mail.put(response(message.id, answer))
    elif message.is_request:
        hub.start(_answer_in_stream(hub, session, mail, message))
    else:
        hub.took(session.profile, session, message)


async def _answer_in_stream(hub: Hub, session: Session, mail: Mail, message: Envelope) -> None:
    answer = await answer_to(hub, session, message, StreamCaller(session, mail.put))
    mail.put(response(message.id, answer))


async def answer_to(hub: Hub, session: Session, message: Envelope, caller: Caller) -> Answer:
    """Handle one request of a session in a task of its own, so that the client can cancel it."""
    began = time.perf_counter_ns()
    request = Request(session.profile, message.method, bytes(message.params), caller, session)
    handling = asyncio.ensure_future(hub.router.handle(request))
    identity = bytes(message.id)
    answer: Answer | None = None

    def cancel() -> None:
        handling.cancel()

    session.running[identity] = cancel
    try:
        await asyncio.wait((handling,))
        if not handling.cancelled():
            answer = handling.result()
    finally:
        handling.cancel()
        session.running.pop(identity, None)
        hub.finished(request, answer, began)
    return answer or failure(envelope.CANCELLED, "Request cancelled")
