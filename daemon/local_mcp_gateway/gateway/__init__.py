"""Proxy MCP between clients and the upstream servers of a profile."""

from typing import TYPE_CHECKING

from local_mcp_gateway.lazy import exports

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.catalog import Route, differs, fitting, remembered, routes_of
    from local_mcp_gateway.gateway.clients import TokenRefused
    from local_mcp_gateway.gateway.gateway import Gateway
    from local_mcp_gateway.gateway.http import (
        OWN,
        Application,
        BodyTooLarge,
        HttpRequest,
        Receive,
        Scope,
        Send,
    )
    from local_mcp_gateway.gateway.oauth import (
        OAuthProblem,
        PendingLogin,
        begin_login,
        finish_login,
        revoke,
    )
    from local_mcp_gateway.gateway.options import GatewayOptions
    from local_mcp_gateway.gateway.stdio_bridge import Bridge
    from local_mcp_gateway.gateway.upstreams import Fetched, NoSandbox, SignInNeeded, sandbox_gaps
else:
    __getattr__ = exports(
        __name__,
        catalog=("Route", "differs", "fitting", "remembered", "routes_of"),
        clients=("TokenRefused",),
        gateway=("Gateway",),
        http=("OWN", "Application", "BodyTooLarge", "HttpRequest", "Receive", "Scope", "Send"),
        oauth=("OAuthProblem", "PendingLogin", "begin_login", "finish_login", "revoke"),
        options=("GatewayOptions",),
        stdio_bridge=("Bridge",),
        upstreams=("Fetched", "NoSandbox", "SignInNeeded", "sandbox_gaps"),
    )

__all__ = [
    "OWN",
    "Application",
    "BodyTooLarge",
    "Bridge",
    "Fetched",
    "Gateway",
    "GatewayOptions",
    "HttpRequest",
    "NoSandbox",
    "OAuthProblem",
    "PendingLogin",
    "Receive",
    "Route",
    "Scope",
    "Send",
    "SignInNeeded",
    "TokenRefused",
    "begin_login",
    "differs",
    "finish_login",
    "fitting",
    "remembered",
    "revoke",
    "routes_of",
    "sandbox_gaps",
]
