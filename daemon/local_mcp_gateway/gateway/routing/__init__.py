"""Route messages between clients and servers, in both directions."""

from local_mcp_gateway.gateway.routing.broker import Broker
from local_mcp_gateway.gateway.routing.call_log import CallLog
from local_mcp_gateway.gateway.routing.dispatcher import Cancellation, Dispatcher
from local_mcp_gateway.gateway.routing.handlers import ClientRequest
from local_mcp_gateway.gateway.routing.registry import Registry, health, state_of
from local_mcp_gateway.gateway.routing.router import Router
from local_mcp_gateway.gateway.routing.sharing import Sharing
from local_mcp_gateway.gateway.routing.subscribers import (
    Subscribers,
    SubscriptionFilter,
    SubscriptionStream,
)

__all__ = [
    "Broker",
    "CallLog",
    "Cancellation",
    "ClientRequest",
    "Dispatcher",
    "Registry",
    "Router",
    "Sharing",
    "Subscribers",
    "SubscriptionFilter",
    "SubscriptionStream",
    "health",
    "state_of",
]
