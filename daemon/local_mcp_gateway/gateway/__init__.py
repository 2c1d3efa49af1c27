"""Proxy MCP between clients and the upstream servers of a profile."""

from typing import TYPE_CHECKING

from local_mcp_gateway.lazy import exports

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.catalog import Route, differs, remembered, routes_of
    from local_mcp_gateway.gateway.gateway import Gateway
    from local_mcp_gateway.gateway.http import (
        Application,
        BodyTooLarge,
        HttpRequest,
        Receive,
        Scope,
        Send,
    )
    from local_mcp_gateway.gateway.options import GatewayOptions
    from local_mcp_gateway.gateway.stdio_bridge import Bridge
else:
    __getattr__ = exports(
        __name__,
        catalog=("Route", "differs", "remembered", "routes_of"),
        gateway=("Gateway",),
        http=("Application", "BodyTooLarge", "HttpRequest", "Receive", "Scope", "Send"),
        options=("GatewayOptions",),
        stdio_bridge=("Bridge",),
    )

__all__ = [
    "Application",
    "BodyTooLarge",
    "Bridge",
    "Gateway",
    "GatewayOptions",
    "HttpRequest",
    "Receive",
    "Route",
    "Scope",
    "Send",
    "differs",
    "remembered",
    "routes_of",
]
