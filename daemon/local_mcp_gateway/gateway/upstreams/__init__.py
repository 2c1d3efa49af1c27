"""Upstream servers: connections, transports and the calls forwarded over them."""

from typing import TYPE_CHECKING

from local_mcp_gateway.lazy import exports

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.upstreams.connection import (
        SILENT,
        Call,
        Caller,
        Connection,
        Events,
        Identity,
        Silent,
        UpstreamDisconnected,
    )
    from local_mcp_gateway.gateway.upstreams.large_responses import Relay, StreamedResponse
    from local_mcp_gateway.gateway.upstreams.process import OrphanReaper
    from local_mcp_gateway.gateway.upstreams.server_requests import ProgressTokens
    from local_mcp_gateway.gateway.upstreams.stdio import DualVersionStdioServer
    from local_mcp_gateway.gateway.upstreams.streamable_http import open_url
    from local_mcp_gateway.gateway.upstreams.upstream import Hooks, Upstream
else:
    __getattr__ = exports(
        __name__,
        connection=(
            "SILENT",
            "Call",
            "Caller",
            "Connection",
            "Events",
            "Identity",
            "Silent",
            "UpstreamDisconnected",
        ),
        large_responses=("Relay", "StreamedResponse"),
        process=("OrphanReaper",),
        server_requests=("ProgressTokens",),
        stdio=("DualVersionStdioServer",),
        streamable_http=("open_url",),
        upstream=("Hooks", "Upstream"),
    )

__all__ = [
    "SILENT",
    "Call",
    "Caller",
    "Connection",
    "DualVersionStdioServer",
    "Events",
    "Hooks",
    "Identity",
    "OrphanReaper",
    "ProgressTokens",
    "Relay",
    "Silent",
    "StreamedResponse",
    "Upstream",
    "UpstreamDisconnected",
    "open_url",
]
