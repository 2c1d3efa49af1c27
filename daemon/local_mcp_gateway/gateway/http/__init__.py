"""HTTP endpoints for clients: Streamable HTTP, legacy SSE, health and metrics."""

from local_mcp_gateway.gateway.http.app import Application, GatewayApp
from local_mcp_gateway.gateway.http.request import (
    OWN,
    BodyTooLarge,
    HttpRequest,
    Receive,
    Scope,
    Send,
)

__all__ = [
    "OWN",
    "Application",
    "BodyTooLarge",
    "GatewayApp",
    "HttpRequest",
    "Receive",
    "Scope",
    "Send",
]
