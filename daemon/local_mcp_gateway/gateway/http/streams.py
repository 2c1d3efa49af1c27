"""Everything that is not one request with one response: GET streams, legacy SSE and batches.

A session's GET stream and `subscriptions/listen`; the transport of 2024-11-05, where everything comes
down one stream and each message goes up as a POST; and batches, which only 2025-03-26 has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

import msgspec

from local_mcp_gateway.gateway.clients import (
    GONE,
    LEVELS,
    EventStream,
    Outbox,
    Session,
    Sessions,
    is_of_stream,
    severity_of,
)
from local_mcp_gateway.gateway.http.response import STREAM_HEADERS
from local_mcp_gateway.gateway.protocol import (
    INVALID_REQUEST,
    Answer,
    Envelope,
    ambiguity,
    decode_batch,
    decode_envelope,
    failure,
    jsonrpc,
    response,
    sse,
    versions,
)
from local_mcp_gateway.gateway.routing import (
    Broker,
    Cancellation,
    ClientRequest,
    Dispatcher,
    SubscriptionFilter,
    SubscriptionStream,
)

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.http.request import HttpRequest
    from local_mcp_gateway.gateway.options import GatewayOptions


PIECE_BYTES: Final = 256 * 1024
"""How much of a chunk is sent at once; a client that does not read leaves more in the socket's buffer."""

Following = Callable[[], Coroutine[Any, Any, bytes | None]]
"""Returns the next chunk of a stream when there is one; None at its end."""


class _Listen(msgspec.Struct):
    notifications: SubscriptionFilter = msgspec.field(default_factory=SubscriptionFilter)


async def listen(
    broker: Broker, profile: str, message: Envelope, http_request: HttpRequest, keepalive_s: float
) -> None:
    """Serve a `subscriptions/listen` request until its client disconnects or the gateway stops."""
    try:
        wanted = msgspec.json.decode(message.params, type=_Listen).notifications
    except msgspec.DecodeError as error:
        answer = failure(jsonrpc.INVALID_PARAMS, f"Invalid params: {error}")
        await http_request.reply(versions.status_of(answer), jsonrpc.response(message.id, answer))
        return
    subscribed = SubscriptionStream(profile, bytes(message.id), wanted, http_request.token_id)
    subscribed.acknowledge()
    async with broker.subscribing(subscribed):
        await stream(http_request, subscribed.next_event, keepalive_s)


async def serve_stream(session: Session, http_request: HttpRequest, keepalive_s: float) -> None:
    """Serve the GET stream of a session; `Last-Event-ID` says where an earlier one broke off."""
    last = http_request.headers.get("last-event-id", "")
    if session.event_store is not None and (found := session.event_store.find(last)) is not None:
        await _resume(session, *found, http_request, keepalive_s)
        return
    if is_of_stream(last):
        await http_request.plain(400, failure(jsonrpc.INVALID_REQUEST, GONE))
        return
    if last.isascii() and last.isdigit():
        session.come_back(jsonrpc.number_of(last.encode()))

    async def next_event() -> bytes | None:
        while not (waiting := session.take()):
            if session.ended:
                return None
            await session.arrived()
        return b"".join(sse.render(body, identity=str(number)) for number, body in waiting)

    session.add_stream()
    http_request.extra = [(b"mcp-session-id", session.id.encode()), *http_request.extra]
    try:
        await stream(http_request, next_event, keepalive_s)
    finally:
        session.remove_stream()


async def _resume(
    session: Session,
    event_stream: EventStream,
    number: int,
    http_request: HttpRequest,
    keepalive_s: float,
) -> None:
    """Serve the rest of a broken POST response, up to its result."""

    async def next_event() -> bytes | None:
        nonlocal number
        found = await event_stream.after(number)
        if found is None:
            return None
        number = found[0]
        return found[1]

    event_stream.on_reconnect()
    http_request.extra = [(b"mcp-session-id", session.id.encode()), *http_request.extra]
    try:
        await stream(http_request, next_event, keepalive_s)
    finally:
        event_stream.on_reader_left()


async def stream(http_request: HttpRequest, next_event: Following, keepalive_s: float) -> None:
    """Send chunks until the client disconnects, or `next_event` returns None."""
    send, headers = http_request.send, [*STREAM_HEADERS, *http_request.extra]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": True})
    async with asyncio.TaskGroup() as tasks:
        leaving = tasks.create_task(_left(http_request))
        getting: asyncio.Task[bytes | None] | None = None
        try:
            while True:
                getting = getting or tasks.create_task(next_event())
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


async def _left(http_request: HttpRequest) -> None:
    while (await http_request.receive())["type"] != "http.disconnect":
        pass


async def serve_sse(
    sessions: Sessions, profile: str, root: str, http_request: HttpRequest, options: GatewayOptions
) -> None:
    """Serve a client's SSE stream until it disconnects; the first event names the endpoint to post to."""
    session = sessions.open(profile, b"", http_request.sender, http_request.token_id)
    session.streams = 1
    legacy_outbox = session.legacy_outbox = Outbox(
        options.max_message_bytes, session.notify_reader, lambda: sessions.close(session)
    )
    endpoint = f"{http_request.prefix or root}/messages/{session.id}".encode()
    first: list[bytes] = [sse.render(endpoint, event=b"endpoint")]

    async def next_event() -> bytes | None:
        if first:
            return first.pop()
        while not (waiting := [body for _, body in session.take()] + legacy_outbox.take()):
            if session.ended:
                return None
            await session.arrived()
        session.outbox.forget(session.taken)  # the client cannot resume to get them
        return b"".join(sse.render(body) for body in waiting)

    try:
        await stream(http_request, next_event, options.keepalive_s)
    finally:
        sessions.close(session)


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


def take(
    dispatcher: Dispatcher, session: Session, legacy_outbox: Outbox, message: Envelope
) -> None:
    """Process a posted message; its response goes to the stream."""
    if message.method == "initialize" and message.is_request:
        try:
            session.introduce(bytes(message.params))
        except jsonrpc.MALFORMED as error:
            answer = failure(jsonrpc.INVALID_PARAMS, f"Invalid params: {error}")
            legacy_outbox.put(response(message.id, answer))
        else:
            identity = bytes(message.id)
            dispatcher.tasks.start(_introduce, dispatcher, session, legacy_outbox, identity)
    elif message.is_request:
        dispatcher.tasks.start(_answer_in_stream, dispatcher, session, legacy_outbox, message)
    else:
        dispatcher.on_notification(session.profile, session, message)


async def _introduce(
    dispatcher: Dispatcher, session: Session, legacy_outbox: Outbox, identity: bytes
) -> None:
    legacy_outbox.put(response(identity, await dispatcher.initialize(session)))


async def _answer_in_stream(
    dispatcher: Dispatcher, session: Session, legacy_outbox: Outbox, message: Envelope
) -> None:
    caller = StreamCaller(session, legacy_outbox.put)
    if (body := await _response_to(dispatcher, session, message, caller)) is not None:
        legacy_outbox.put(body)


async def _response_to(
    dispatcher: Dispatcher, session: Session, message: Envelope, caller: StreamCaller
) -> bytes | None:
    """Handle one request of a session, in its own task; None where its client has cancelled it."""
    request = ClientRequest(
        session.profile,
        message.method,
        bytes(message.params),
        caller,
        session,
        identity=bytes(message.id),
        token=dispatcher.token_of(session),
        token_id=session.token,
        client=session.client_name or None,
    )
    answer = await dispatcher.answer(request, Cancellation())
    return None if answer is None else response(message.id, answer)


REVISION: Final = "2025-03-26"
MOST_MESSAGES: Final = 1000


async def serve_batch(
    dispatcher: Dispatcher, session: Session | None, body: bytes, http_request: HttpRequest
) -> None:
    """Respond to a batch with an array, or with 202 when nothing in it expects a response.

    What servers send before their responses goes to the session's GET stream.
    """
    messages = _messages(body)
    if session is None or session.version != REVISION or not 0 < len(messages) <= MOST_MESSAGES:
        text = f"Only a session of {REVISION} takes batches, of 1 to {MOST_MESSAGES} messages"
        await http_request.plain(400, failure(INVALID_REQUEST, text))
        return
    async with asyncio.TaskGroup() as tasks:
        answering = [tasks.create_task(_one(dispatcher, session, part)) for part in messages]
    bodies = [body for body in (each.result() for each in answering) if body is not None]
    if bodies:
        await http_request.reply(200, b"[" + b",".join(bodies) + b"]")
    else:
        await http_request.empty(202)


def _messages(body: bytes) -> list[bytes]:
    try:
        return [bytes(part) for part in decode_batch(body)]
    except msgspec.DecodeError:
        return []


async def _one(dispatcher: Dispatcher, session: Session, part: bytes) -> bytes | None:
    try:
        message = decode_envelope(part)
        refused = ambiguity(part, message)
    except jsonrpc.MALFORMED as error:
        return response(b"null", failure(INVALID_REQUEST, f"Invalid request: {error}"))
    if refused is not None:
        return refused
    if (why := message.fault) is not None:
        return response(message.reply_id, failure(INVALID_REQUEST, why))
    if not message.is_request:
        dispatcher.on_notification(session.profile, session, message)
        return None
    return await _response_to(dispatcher, session, message, StreamCaller(session))
