"""How the servers are, and what of that `/health/ready` tells whoever asks. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from local_mcp_gateway.log.redact import redact
from local_mcp_gateway.store.model import CatalogKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from local_mcp_gateway.gateway.upstreams.upstream import Upstream


def ready(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return the status without the lines that servers wrote, and with what looks secret hidden."""
    servers = {
        name: redact({key: value for key, value in server.items() if key != "wrote"})
        for name, server in status["servers"].items()
    }
    return {"status": "ready", **status, "servers": servers}


def state_of(upstream: Upstream) -> dict[str, Any]:
    """Return how one server is: why it is down or what of it is missing, and what it wrote last."""
    lists = upstream.shelf.lists or {}
    return {
        "state": upstream.state.value,
        "reason": upstream.reason or upstream.keeper.fault,
        "retry_at": upstream.retry_at,
        "tools": len(lists[CatalogKind.TOOLS]) if lists else None,
        "held": sorted(upstream.shelf.held),
        "protocol": upstream.identity.version if upstream.identity else None,
        "pid": upstream.pid,
        "wrote": list(upstream.wrote),
    }
