"""What the gateway says of its servers in `initialize` and `server/discover`. Pure.

A client sees the union of what the servers of its profile can, and their instructions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Protocol

from local_mcp_gateway.gateway.catalog import readable_capabilities
from local_mcp_gateway.gateway.protocol import NOTIFICATIONS, decode_any, encode, versions

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.upstreams import Identity


ALWAYS: Final[dict[str, dict[str, Any]]] = {
    "tools": {"listChanged": True},
    "resources": {"listChanged": True, "subscribe": True},
    "prompts": {"listChanged": True},
    "completions": {},
    "logging": {},
}
"""What the gateway does itself for servers that have it: a list changes also when a server joins."""
CUT_BYTES: Final = 2048
"""Where some clients cut off instructions."""


class ServerInfo(Protocol):
    """A server and what it reported about itself at the last connection."""

    identity: Identity | None

    @property
    def name(self) -> str:
        """Return the server's name."""

    @property
    def listed(self) -> frozenset[str]:
        """Return the capabilities whose lists have something in them, declared or not."""


def initialize_result(version: str, servers: Iterable[ServerInfo]) -> dict[str, Any]:
    """Return the result of `initialize`."""
    known = list(servers)
    result: dict[str, Any] = {
        "protocolVersion": version,
        "capabilities": _capabilities(known),
        "serverInfo": _implementation(known),
    }
    if text := instructions(_with_instructions(known)):
        result["instructions"] = text
    return result


def discover_result(servers: Iterable[ServerInfo]) -> dict[str, Any]:
    """Return the result of `server/discover`."""
    known = list(servers)
    result: dict[str, Any] = {
        "resultType": "complete",
        "supportedVersions": list(versions.MODERN),
        "capabilities": _capabilities(known),
        "ttlMs": 0,
        "cacheScope": "private",
        "_meta": {versions.SERVER_KEY: _implementation(known)},
    }
    if text := instructions(_with_instructions(known)):
        result["instructions"] = text
    return result


def _capabilities(servers: list[ServerInfo]) -> dict[str, Any]:
    """Return the union of the servers' capabilities, known to us or not.

    Those that we know are all offered while a server was never connected: it may have them.
    """
    union: dict[str, Any] = {}
    for server in servers:
        identity = server.identity
        declared = {} if identity is None else decode_any(encode(identity.capabilities))
        readable = readable_capabilities(declared)
        for name, value in {**{name: {} for name in server.listed}, **readable}.items():
            if isinstance(value, dict):
                union[name] = _united(union.get(name, {}), value)
    unknown = not servers or any(server.identity is None for server in servers)
    for name, offer in ALWAYS.items():
        if unknown or name in union:
            union[name] = {**union.get(name, {}), **offer}
    return union


def _united(first: Any, second: Any) -> Any:
    """Return what either of two servers can; without null members, which clients refuse."""
    if isinstance(first, dict) and isinstance(second, dict):
        merged = dict(first)
        for key, value in second.items():
            if value is not None:
                merged[key] = _united(first[key], value) if key in first else _united({}, value)
        return merged
    if isinstance(first, list) and isinstance(second, list):
        return [*first, *(item for item in second if item not in first)]
    if isinstance(first, bool) and isinstance(second, bool):
        return first or second
    return second if first == {} else first


def _implementation(servers: list[ServerInfo]) -> dict[str, Any]:
    """Return our name and version; the title, icons and texts of a server that is alone here."""
    if len(servers) != 1 or servers[0].identity is None:
        return versions.GATEWAY_INFO
    return {**versions.GATEWAY_INFO, **servers[0].identity.about}


def declares(identity: Identity | None, method: str) -> bool:
    """Return whether a server declares the capability or extension that a method is named after."""
    if identity is None:
        return False
    subject = method.removeprefix(NOTIFICATIONS)
    head = subject.partition("/")[0]
    if head in identity.capabilities:
        return True
    names: set[str] = set()
    for kind in ("extensions", "experimental"):
        members = decode_any(identity.capabilities.get(kind, b"null"))
        names.update(members if isinstance(members, dict) else ())
    return any(
        head in {name, name.rpartition("/")[2]} or subject.startswith(f"{name}/") for name in names
    )


def _with_instructions(servers: list[ServerInfo]) -> list[tuple[str, str]]:
    return [
        (server.name, server.identity.instructions)
        for server in servers
        if server.identity is not None and server.identity.instructions
    ]


def instructions(parts: list[tuple[str, str]]) -> str:
    """Return the instructions of all servers; what a client reads that cuts them has a part of each.

    A text that is longer than its share is continued after the others.
    """
    if len(parts) == 1:
        return parts[0][1]
    begun, rest = [], []
    room, waiting = CUT_BYTES, len(parts)
    shares: dict[str, int] = {}
    for name, text in sorted(parts, key=lambda each: len(each[1].encode())):
        shares[name] = room // waiting - len(f"# {name}\n…\n\n".encode())
        room -= min(shares[name], len(text.encode())) + len(f"# {name}\n…\n\n".encode())
        waiting -= 1
    for name, text in parts:
        start = _cut(text, shares[name])
        begun.append(f"# {name}\n{start}" + ("…" if len(start) < len(text) else ""))
        if len(start) < len(text):
            rest.append(f"# {name}, continued\n…{text[len(start) :]}")
    return "\n\n".join(begun + rest)


def _cut(text: str, size: int) -> str:
    """Return the text, or as many of its first words as fit into `size` bytes."""
    if len(text.encode()) <= size:
        return text
    start = text.encode()[: max(size, 0)].decode("utf-8", "ignore")
    end = max(start.rfind(" "), start.rfind("\n"))
    return start[:end] if end > len(start) // 2 else start
