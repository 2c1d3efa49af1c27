"""Upstream servers: connections, transports and the calls forwarded over them."""

from typing import TYPE_CHECKING

from local_mcp_gateway.lazy import exports

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.upstreams.catalog_sync import Fetched, fetch_lists, undeclared
    from local_mcp_gateway.gateway.upstreams.connection import (
        CLIENT_HEADERS,
        SILENT,
        Call,
        Caller,
        Connection,
        Events,
        HttpRefusal,
        Identity,
        SignInNeeded,
        Silent,
        UpstreamDisconnected,
    )
    from local_mcp_gateway.gateway.upstreams.definitions import (
        Unseal,
        as_reason,
        in_sandbox,
        open_connection,
        same_definition,
        with_values,
    )
    from local_mcp_gateway.gateway.upstreams.handshake import initialize_params
    from local_mcp_gateway.gateway.upstreams.http_request import (
        MOST_REDIRECTS,
        reason_of,
        redirected,
    )
    from local_mcp_gateway.gateway.upstreams.large_responses import Relay, StreamedResponse
    from local_mcp_gateway.gateway.upstreams.lifecycle import OTHER_CLIENT
    from local_mcp_gateway.gateway.upstreams.network import proxy_of, sign_in_session
    from local_mcp_gateway.gateway.upstreams.process import OrphanReaper
    from local_mcp_gateway.gateway.upstreams.sandbox import NoSandbox, sandbox_gaps
    from local_mcp_gateway.gateway.upstreams.server_requests import ROOTS, ProgressTokens
    from local_mcp_gateway.gateway.upstreams.upstream import (
        ANYBODY,
        NOBODY,
        SEVERAL,
        Hooks,
        Upstream,
    )
else:
    __getattr__ = exports(
        __name__,
        catalog_sync=("Fetched", "fetch_lists", "undeclared"),
        connection=(
            "CLIENT_HEADERS",
            "SILENT",
            "Call",
            "Caller",
            "Connection",
            "Events",
            "HttpRefusal",
            "Identity",
            "SignInNeeded",
            "Silent",
            "UpstreamDisconnected",
        ),
        definitions=(
            "Unseal",
            "as_reason",
            "in_sandbox",
            "open_connection",
            "same_definition",
            "with_values",
        ),
        handshake=("initialize_params",),
        http_request=("MOST_REDIRECTS", "reason_of", "redirected"),
        large_responses=("Relay", "StreamedResponse"),
        lifecycle=("OTHER_CLIENT",),
        network=("proxy_of", "sign_in_session"),
        process=("OrphanReaper",),
        sandbox=("NoSandbox", "sandbox_gaps"),
        server_requests=("ROOTS", "ProgressTokens"),
        upstream=("ANYBODY", "NOBODY", "SEVERAL", "Hooks", "Upstream"),
    )

__all__ = [
    "ANYBODY",
    "CLIENT_HEADERS",
    "MOST_REDIRECTS",
    "NOBODY",
    "OTHER_CLIENT",
    "ROOTS",
    "SEVERAL",
    "SILENT",
    "Call",
    "Caller",
    "Connection",
    "Events",
    "Fetched",
    "Hooks",
    "HttpRefusal",
    "Identity",
    "NoSandbox",
    "OrphanReaper",
    "ProgressTokens",
    "Relay",
    "SignInNeeded",
    "Silent",
    "StreamedResponse",
    "Unseal",
    "Upstream",
    "UpstreamDisconnected",
    "as_reason",
    "fetch_lists",
    "in_sandbox",
    "initialize_params",
    "open_connection",
    "proxy_of",
    "reason_of",
    "redirected",
    "same_definition",
    "sandbox_gaps",
    "sign_in_session",
    "undeclared",
    "with_values",
]
