"""Describe the gateway to clients and operators: `initialize`, `server/discover` and health. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Protocol

from local_mcp_gateway.gateway.protocol import versions
from local_mcp_gateway.log import redact_text
from local_mcp_gateway.store.model import CatalogKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from local_mcp_gateway.gateway.upstreams.connection import Identity
    from local_mcp_gateway.gateway.upstreams.upstream import Upstream


OFFERED: Final[dict[str, dict[str, Any]]] = {
    "tools": {"listChanged": True},
    "resources": {"listChanged": True, "subscribe": True},
    "prompts": {"listChanged": True},
    "completions": {},
    "logging": {},
}


class ServerInfo(Protocol):
    """A server and what it reported about itself at the last connection."""

    identity: Identity | None

    @property
    def name(self) -> str:
        """Return the server's name."""


def initialize_result(version: str, servers: Iterable[ServerInfo]) -> dict[str, Any]:
    """Return the result of `initialize`."""
    known = list(servers)
    result: dict[str, Any] = {
        "protocolVersion": version,
        "capabilities": _capabilities(known),
        "serverInfo": versions.GATEWAY_INFO,
    }
    if text := _instructions(known):
        result["instructions"] = text
    return result


def discover_result(servers: Iterable[ServerInfo]) -> dict[str, Any]:
    """Return the result of `server/discover`."""
    known = list(servers)
    capabilities = _capabilities(known)
    result: dict[str, Any] = {
        "resultType": "complete",
        "supportedVersions": list(versions.MODERN),
        "capabilities": capabilities,
        "ttlMs": 0,
        "cacheScope": "private",
        "_meta": {versions.SERVER_KEY: versions.GATEWAY_INFO},
    }
    if text := _instructions(known):
        result["instructions"] = text
    return result


def _capabilities(servers: list[ServerInfo]) -> dict[str, Any]:
    """Return the union of the servers' capabilities; all of them while one was never connected."""
    seen = [server.identity.capabilities for server in servers if server.identity is not None]
    if len(seen) < len(servers) or not servers:
        return OFFERED
    return {name: offer for name, offer in OFFERED.items() if any(name in known for known in seen)}


def _instructions(servers: list[ServerInfo]) -> str:
    told = [
        (server.name, server.identity.instructions)
        for server in servers
        if server.identity is not None and server.identity.instructions
    ]
    if len(told) == 1:
        return told[0][1] or ""
    return "\n\n".join(f"# {name}\n{text}" for name, text in told)


def ready(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return the status without the servers' output, and with only the code of a problem."""
    servers = {
        name: {key: value for key, value in server.items() if key != "wrote"}
        for name, server in status["servers"].items()
    }
    shown = {key: value for key, value in status.items() if key != "problem"}
    problem = status["problem"]
    return {"status": problem["code"] if problem else "ready", **shown, "servers": servers}


def state_of(upstream: Upstream) -> dict[str, Any]:
    """Return a server's state: why it is down or incomplete, and its last output.

    Secrets in it are redacted.
    """
    lists = upstream.catalog.lists or {}
    reason = upstream.reason or upstream.catalog_sync.fault
    return {
        "state": upstream.state.value,
        "reason": reason and redact_text(reason),
        "retry_at": upstream.retry_at,
        "tools": len(lists[CatalogKind.TOOLS]) if lists else None,
        "held": sorted(upstream.catalog.held),
        "protocol": upstream.identity.version if upstream.identity else None,
        "pid": upstream.pid,
        "wrote": [redact_text(line) for line in upstream.stderr_lines],
    }
