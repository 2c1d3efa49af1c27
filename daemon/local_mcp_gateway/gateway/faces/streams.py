"""Streams that outlive a request: a session's GET stream, and `subscriptions/listen`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from local_mcp_gateway.gateway.clients.listener import Filter, Listener
from local_mcp_gateway.gateway.clients.replay import GONE, is_of_stream
from local_mcp_gateway.gateway.faces.exchange import STREAM_HEADERS
from local_mcp_gateway.gateway.protocol import envelope, eras, sse
from local_mcp_gateway.gateway.protocol.envelope import Envelope, failure

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.clients.replay import Replay
    from local_mcp_gateway.gateway.clients.sessions import Session
    from local_mcp_gateway.gateway.faces.visit import Visit
    from local_mcp_gateway.gateway.relay.hub import Hub

PIECE_BYTES: Final = 256 * 1024
"""How much of a chunk is sent at once: more lies in the socket's buffer while a client does not read."""


class _Listen(msgspec.Struct):
    notifications: Filter = msgspec.field(default_factory=Filter)


async def listen(hub: Hub, profile: str, message: Envelope, visit: Visit) -> None:
    """Serve a `subscriptions/listen` request until its client leaves or the gateway stops."""
    try:
        wanted = msgspec.json.decode(message.params, type=_Listen).notifications
    except msgspec.DecodeError as error:
        answer = failure(envelope.INVALID_PARAMS, f"Invalid params: {error}")
        await visit.reply(eras.status_of(answer), envelope.response(message.id, answer))
        return
    listener = Listener(profile, bytes(message.id), wanted)
    listener.acknowledge()
    hub.listeners.add(listener)
    try:
        await hub.subscribe(profile, listener.subscriptions)
        await stream(visit, listener.following, hub.options.keepalive_s)
    finally:
        hub.listeners.discard(listener)
        hub.unsubscribe_soon(profile, listener.subscriptions)


async def serve_stream(hub: Hub, session: Session, visit: Visit) -> None:
    """Serve the GET stream of a session; `Last-Event-ID` says where an earlier one broke off."""
    last = visit.headers.get("last-event-id", "")
    if session.replays is not None and (found := session.replays.find(last)) is not None:
        await _resume(hub, session, *found, visit)
        return
    if is_of_stream(last):
        await visit.plain(400, failure(envelope.INVALID_REQUEST, GONE))
        return
    if last.isascii() and last.isdigit():
        session.come_back(envelope.number_of(last.encode()))

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


async def _resume(hub: Hub, session: Session, replay: Replay, number: int, visit: Visit) -> None:
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


async def stream(visit: Visit, following: Callable[[], Any], keepalive_s: float) -> None:
    """Send chunks until the client leaves, or `following` returns None."""
    send, headers = visit.send, [*STREAM_HEADERS, *visit.extra]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": True})
    leaving = asyncio.create_task(_left(visit))
    getting: asyncio.Task[bytes | None] | None = None
    try:
        while not leaving.done():
            getting = getting or asyncio.create_task(following())
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
        tasks = [task for task in (leaving, getting) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _left(visit: Visit) -> None:
    while (await visit.receive())["type"] != "http.disconnect":
        pass
