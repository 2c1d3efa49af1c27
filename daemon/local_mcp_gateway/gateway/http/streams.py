"""Streams that outlive a request: a session's GET stream, and `subscriptions/listen`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

import msgspec

from local_mcp_gateway.gateway.clients.event_store import GONE, is_of_stream
from local_mcp_gateway.gateway.clients.sessions import LEVELS, severity_of
from local_mcp_gateway.gateway.clients.subscriptions import (
    Outbox,
    SubscriptionFilter,
    SubscriptionStream,
)
from local_mcp_gateway.gateway.http.response import STREAM_HEADERS
from local_mcp_gateway.gateway.protocol import jsonrpc, sse, versions
from local_mcp_gateway.gateway.protocol.ambiguity import refusal
from local_mcp_gateway.gateway.protocol.jsonrpc import (
    INVALID_REQUEST,
    Answer,
    Envelope,
    decode_batch,
    decode_envelope,
    failure,
    response,
)
from local_mcp_gateway.gateway.routing.handlers import ClientRequest

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.clients.event_store import EventStream
    from local_mcp_gateway.gateway.clients.sessions import Session
    from local_mcp_gateway.gateway.http.request import HttpRequest
    from local_mcp_gateway.gateway.routing.broker import Broker
    from local_mcp_gateway.gateway.upstreams.connection import Caller


PIECE_BYTES: Final = 256 * 1024
"""How much of a chunk is sent at once: more lies in the socket's buffer while a client does not read."""

Following = Callable[[], Coroutine[Any, Any, bytes | None]]
"""Returns the next chunk of a stream when there is one; None at its end."""


class _Listen(msgspec.Struct):
    notifications: SubscriptionFilter = msgspec.field(default_factory=SubscriptionFilter)


async def listen(hub: Broker, profile: str, message: Envelope, visit: HttpRequest) -> None:
    """Serve a `subscriptions/listen` request until its client leaves or the gateway stops."""
    try:
        wanted = msgspec.json.decode(message.params, type=_Listen).notifications
    except msgspec.DecodeError as error:
        answer = failure(jsonrpc.INVALID_PARAMS, f"Invalid params: {error}")
        await visit.reply(versions.status_of(answer), jsonrpc.response(message.id, answer))
        return
    listener = SubscriptionStream(profile, bytes(message.id), wanted)
    listener.acknowledge()
    hub.listeners.add(listener)
    try:
        await hub.subscribe(profile, listener.subscriptions)
        await stream(visit, listener.following, hub.options.keepalive_s)
    finally:
        hub.listeners.discard(listener)
        hub.unsubscribe_soon(profile, listener.subscriptions)


async def serve_stream(hub: Broker, session: Session, visit: HttpRequest) -> None:
    """Serve the GET stream of a session; `Last-Event-ID` says where an earlier one broke off."""
    last = visit.headers.get("last-event-id", "")
    if session.replays is not None and (found := session.replays.find(last)) is not None:
        await _resume(hub, session, *found, visit)
        return
    if is_of_stream(last):
        await visit.plain(400, failure(jsonrpc.INVALID_REQUEST, GONE))
        return
    if last.isascii() and last.isdigit():
        session.come_back(jsonrpc.number_of(last.encode()))

    async def following() -> bytes | None:
        while not (waiting := session.take()):
            if session.ended:
                return None
            await session.arrived()
        return b"".join(sse.render(body, identity=str(number)) for number, body in waiting)

    session.listens()
    visit.extra = [(b"mcp-session-id", session.id.encode()), *visit.extra]
    try:
        await stream(visit, following, hub.options.keepalive_s)
    finally:
        session.listens_no_more()


async def _resume(
    hub: Broker, session: Session, replay: EventStream, number: int, visit: HttpRequest
) -> None:
    """Serve the rest of a stream that answered a POST, up to its answer."""

    async def following() -> bytes | None:
        nonlocal number
        found = await replay.after(number)
        if found is None:
            return None
        number = found[0]
        return found[1]

    replay.came_back()
    visit.extra = [(b"mcp-session-id", session.id.encode()), *visit.extra]
    try:
        await stream(visit, following, hub.options.keepalive_s)
    finally:
        replay.left_again()


async def stream(visit: HttpRequest, following: Following, keepalive_s: float) -> None:
    """Send chunks until the client leaves, or `following` returns None."""
    send, headers = visit.send, [*STREAM_HEADERS, *visit.extra]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": True})
    async with asyncio.TaskGroup() as tasks:
        leaving = tasks.create_task(_left(visit))
        getting: asyncio.Task[bytes | None] | None = None
        try:
            while True:
                getting = getting or tasks.create_task(following())
                await asyncio.wait(
                    (leaving, getting), timeout=keepalive_s, return_when=asyncio.FIRST_COMPLETED
                )
                if leaving.done():
                    return
                chunk: bytes | None = sse.KEEPALIVE
                if getting.done():
                    chunk, getting = getting.result(), None
                if chunk is None:
                    await send({"type": "http.response.body", "body": b""})
                    return
                for at in range(0, len(chunk), PIECE_BYTES):
                    piece = chunk[at : at + PIECE_BYTES]
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        finally:
            leaving.cancel()
            if getting is not None:
                getting.cancel()


async def _left(visit: HttpRequest) -> None:
    while (await visit.receive())["type"] != "http.disconnect":
        pass


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
            self._session.offer(jsonrpc.notification(method, params))

    async def asked(self, method: str, params: bytes) -> Answer:
        """Ask through the stream."""
        return await self._session.ask(method, params, self._ask)


async def serve_sse(hub: Broker, profile: str, root: str, visit: HttpRequest) -> None:
    """Serve the stream of one client until it leaves."""
    session = hub.sessions.open(profile, b"", visit.sender)
    session.streams = 1
    mail = session.mail = Outbox(
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


def take(hub: Broker, session: Session, mail: Outbox, message: Envelope) -> None:
    """Take a posted message; what it is answered with goes to the stream."""
    if message.method == "initialize" and message.is_request:
        try:
            session.introduce(bytes(message.params))
            answer = hub.hello(session)
        except jsonrpc.MALFORMED as error:
            answer = failure(jsonrpc.INVALID_PARAMS, f"Invalid params: {error}")
        mail.put(response(message.id, answer))
    elif message.is_request:
        hub.tasks.start(_answer_in_stream, hub, session, mail, message)
    else:
        hub.took(session.profile, session, message)


async def _answer_in_stream(hub: Broker, session: Session, mail: Outbox, message: Envelope) -> None:
    answer = await answer_to(hub, session, message, StreamCaller(session, mail.put))
    mail.put(response(message.id, answer))


async def answer_to(hub: Broker, session: Session, message: Envelope, caller: Caller) -> Answer:
    """Handle one request of a session. It has a task of its own, so that the client can cancel it."""
    task, cancelled = asyncio.current_task(), False
    assert task is not None, "a coroutine runs in a task"
    began = time.perf_counter_ns()
    request = ClientRequest(session.profile, message.method, bytes(message.params), caller, session)
    identity = bytes(message.id)
    answer: Answer | None = None

    def cancel() -> None:
        nonlocal cancelled
        cancelled = True
        task.cancel()

    session.running[identity] = cancel
    try:
        answer = await hub.router.handle(request)
    except asyncio.CancelledError:
        if not cancelled:
            raise
        task.uncancel()
    finally:
        session.running.pop(identity, None)
        hub.finished(request, answer, began)
    return answer or failure(jsonrpc.CANCELLED, "Request cancelled")


REVISION: Final = "2025-03-26"
MOST_MESSAGES: Final = 1000


def is_batch(body: bytes) -> bool:
    """Whether a body holds an array."""
    return body.lstrip()[:1] == b"["


async def serve_batch(hub: Broker, profile: str, body: bytes, visit: HttpRequest) -> None:
    """Answer a batch with an array, or with 202 when nothing in it waits for an answer.

    What servers send before their answers goes to the session's GET stream.
    """
    session = hub.sessions.find(visit.headers.get("mcp-session-id", ""), profile)
    messages = _messages(body)
    if session is None or session.version != REVISION or not messages:
        text = f"Only a session of {REVISION} takes batches, of 1 to {MOST_MESSAGES} messages"
        await visit.plain(400, failure(INVALID_REQUEST, text))
        return
    async with asyncio.TaskGroup() as tasks:
        answering = [tasks.create_task(_one(hub, session, *message)) for message in messages]
    bodies = [body for body in (each.result() for each in answering) if body is not None]
    if bodies:
        await visit.reply(200, b"[" + b",".join(bodies) + b"]")
    else:
        await visit.empty(202)


def _messages(body: bytes) -> list[tuple[bytes, Envelope]]:
    try:
        parts = [bytes(part) for part in decode_batch(body)]
        if len(parts) > MOST_MESSAGES:
            return []
        return [(part, decode_envelope(part)) for part in parts]
    except msgspec.DecodeError:
        return []


async def _one(hub: Broker, session: Session, part: bytes, message: Envelope) -> bytes | None:
    if (refused := refusal(part, message)) is not None:
        return refused
    if (why := message.fault) is not None:
        return response(b"null", failure(INVALID_REQUEST, why))
    if not message.is_request:
        hub.took(session.profile, session, message)
        return None
    answer = await answer_to(hub, session, message, StreamCaller(session))
    return response(message.id, answer)
