"""How the gateway introduces itself: one server that can what its upstreams can. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Protocol

from local_mcp_gateway.gateway.protocol import eras

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.upstreams.connection import Identity

OFFERED: Final[dict[str, dict[str, Any]]] = {
    "tools": {"listChanged": True},
    "resources": {"listChanged": True, "subscribe": True},
    "prompts": {"listChanged": True},
    "completions": {},
    "logging": {},
}


class Introduced(Protocol):
    """A server and what it said of itself when it was last seen."""

    identity: Identity | None

    @property
    def name(self) -> str:
        """Return the server's name."""


def initialize_result(version: str, servers: Iterable[Introduced]) -> dict[str, Any]:
    """Return the result of `initialize`."""
    known = list(servers)
    result: dict[str, Any] = {
        "protocolVersion": version,
        "capabilities": _capabilities(known),
        "serverInfo": eras.GATEWAY_INFO,
    }
    if text := _instructions(known):
        result["instructions"] = text
    return result


def discover_result(servers: Iterable[Introduced]) -> dict[str, Any]:
    """Return the result of `server/discover`."""
    known = list(servers)
    capabilities = _capabilities(known)
    result: dict[str, Any] = {
        "resultType": "complete",
        "supportedVersions": list(eras.MODERN),
        "capabilities": capabilities,
        "ttlMs": 0,
        "cacheScope": "private",
        "_meta": {eras.SERVER_KEY: eras.GATEWAY_INFO},
    }
    if text := _instructions(known):
        result["instructions"] = text
    return result


def _capabilities(servers: list[Introduced]) -> dict[str, Any]:
    """Return what any server offers; while one has never been seen, everything may be offered."""
    seen = [server.identity.capabilities for server in servers if server.identity is not None]
    if len(seen) < len(servers) or not servers:
        return OFFERED
    return {name: offer for name, offer in OFFERED.items() if any(name in known for known in seen)}


def _instructions(servers: list[Introduced]) -> str:
    told = [
        (server.name, server.identity.instructions)
        for server in servers
        if server.identity is not None and server.identity.instructions
    ]
    if len(told) == 1:
        return told[0][1] or ""
    return "\n\n".join(f"# {name}\n{text}" for name, text in told)
