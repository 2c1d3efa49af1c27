"""Batches: several messages in one POST. Only 2025-03-26 has them over Streamable HTTP."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec

from local_mcp_gateway.gateway.faces.legacy_sse import StreamCaller, answer_to
from local_mcp_gateway.gateway.protocol.ambiguity import refusal
from local_mcp_gateway.gateway.protocol.envelope import (
    INVALID_REQUEST,
    Envelope,
    decode_batch,
    decode_envelope,
    failure,
    response,
)

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.clients.sessions import Session
    from local_mcp_gateway.gateway.faces.visit import Visit
    from local_mcp_gateway.gateway.relay.hub import Hub

REVISION: Final = "2025-03-26"
MOST_MESSAGES: Final = 1000


def is_batch(body: bytes) -> bool:
    """Whether a body holds an array."""
    return body.lstrip()[:1] == b"["


async def serve_batch(hub: Hub, profile: str, body: bytes, visit: Visit) -> None:
    """Answer a batch with an array, or with 202 when nothing in it waits for an answer.

    What servers send before their answers goes to the session's GET stream.
    """
    session = hub.sessions.find(visit.headers.get("mcp-session-id", ""), profile)
    messages = _messages(body)
    if session is None or session.version != REVISION or not messages:
        text = f"Only a session of {REVISION} takes batches, of 1 to {MOST_MESSAGES} messages"
        await visit.plain(400, failure(INVALID_REQUEST, text))
        return
    answers = await asyncio.gather(*(_one(hub, session, *message) for message in messages))
    bodies = [answer for answer in answers if answer is not None]
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


async def _one(hub: Hub, session: Session, part: bytes, message: Envelope) -> bytes | None:
    if (refused := refusal(part, message)) is not None:
        return refused
    if (why := message.fault) is not None:
        return response(b"null", failure(INVALID_REQUEST, why))
    if not message.is_request:
        hub.took(session.profile, session, message)
        return None
    answer = await answer_to(hub, session, message, StreamCaller(session))
    return response(message.id, answer)
