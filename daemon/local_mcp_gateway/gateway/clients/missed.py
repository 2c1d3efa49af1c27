"""What a client is told instead of messages that were too much to be kept for it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from local_mcp_gateway.gateway.protocol.envelope import encode, notification

LIST_CHANGES: Final = (
    "notifications/tools/list_changed",
    "notifications/prompts/list_changed",
    "notifications/resources/list_changed",
)


def warning(lost: int) -> bytes:
    """Return the log message that says so."""
    were = "1 message was" if lost == 1 else f"{lost} messages were"
    data = f"{were} not kept for you: you read too slowly, or came back too late"
    told = {"level": "warning", "logger": "local-mcp-gateway", "data": data}
    return notification("notifications/message", encode(told))


def news(lost: int, watched: Iterable[str]) -> list[bytes]:
    """Return all that a client may have missed in its own stream, said anew."""
    changes = [notification(method) for method in LIST_CHANGES]
    updates = [
        notification("notifications/resources/updated", encode({"uri": uri})) for uri in watched
    ]
    return [warning(lost), *changes, *updates]
