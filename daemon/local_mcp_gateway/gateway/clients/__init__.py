"""Clients of the gateway: origin checks, sessions, subscriptions and resumable streams."""

from local_mcp_gateway.gateway.clients.capabilities import differs, refusal, shared
from local_mcp_gateway.gateway.clients.event_store import (
    GONE,
    EventStream,
    Outbox,
    is_of_stream,
    missed_warning,
)
from local_mcp_gateway.gateway.clients.sessions import LEVELS, Session, Sessions, severity_of

__all__ = [
    "GONE",
    "LEVELS",
    "EventStream",
    "Outbox",
    "Session",
    "Sessions",
    "differs",
    "is_of_stream",
    "missed_warning",
    "refusal",
    "severity_of",
    "shared",
]
