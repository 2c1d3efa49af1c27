"""Clients of the gateway: their tokens, sessions, capabilities and resumable streams."""

from local_mcp_gateway.gateway.clients.admission import (
    LIMITED,
    RETRY_AFTER,
    Admission,
    Limiter,
    RefusalDelay,
    TokenRefused,
)
from local_mcp_gateway.gateway.clients.capabilities import (
    LEVELS,
    LONGEST_NAME,
    MEDIATED,
    beyond,
    differs,
    name_of_client,
    refusal,
    severity_of,
    shared,
)
from local_mcp_gateway.gateway.clients.event_store import (
    GONE,
    EventStream,
    Outbox,
    is_of_stream,
    missed_warning,
)
from local_mcp_gateway.gateway.clients.sessions import Session, Sessions

__all__ = [
    "GONE",
    "LEVELS",
    "LIMITED",
    "LONGEST_NAME",
    "MEDIATED",
    "RETRY_AFTER",
    "Admission",
    "EventStream",
    "Limiter",
    "Outbox",
    "RefusalDelay",
    "Session",
    "Sessions",
    "TokenRefused",
    "beyond",
    "differs",
    "is_of_stream",
    "missed_warning",
    "name_of_client",
    "refusal",
    "severity_of",
    "shared",
]
