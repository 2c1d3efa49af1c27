"""Read the common `mcpServers` JSON, as Claude, Cursor, VS Code and others write it. Pure."""

from __future__ import annotations

from typing import Any

from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.store.model import ServerDefinition, ServerKind

_KINDS = {
    "stdio": ServerKind.STDIO,
    "http": ServerKind.HTTP,
    "streamable-http": ServerKind.HTTP,
    "streamableHttp": ServerKind.HTTP,
    "sse": ServerKind.SSE,
}


def definitions_in(document: object) -> tuple[ServerDefinition, ...]:
    """Return the servers of a document; raises UsageProblem that names the one that is wrong.

    The list is found under `mcpServers` (Claude, Cursor), `servers` (VS Code) or `mcp.servers`.
    """
    servers = _find(document)
    return tuple(_definition(name, entry) for name, entry in servers.items())


def _find(document: object) -> dict[str, Any]:
    if isinstance(document, dict):
        nested = document.get("mcp")
        for holder in (document, nested if isinstance(nested, dict) else {}):
            for key in ("mcpServers", "servers"):
                if isinstance(holder.get(key), dict):
                    return dict(holder[key])
    raise UsageProblem(
        "The file holds no list of MCP servers.",
        hint='It has to look like {"mcpServers": {"name": {"command": "…", "args": []}}}.',
    )


def _definition(name: str, entry: object) -> ServerDefinition:
    if not isinstance(entry, dict):
        raise UsageProblem(f"The server {name!r} in the file is not an object.")
    url = entry.get("url") or entry.get("serverUrl") or entry.get("httpUrl")
    declared = entry.get("type") or entry.get("transport") or ("http" if url else "stdio")
    if declared not in _KINDS:
        known = ", ".join(sorted(_KINDS))
        raise UsageProblem(
            f"The server {name!r} has the type {declared!r}.", hint=f"Known are {known}."
        )
    kind = _KINDS[declared]
    local = kind is ServerKind.STDIO
    return ServerDefinition(
        name=name,
        kind=kind,
        command=_text(name, entry, "command") if local else None,
        args=_list(name, entry, "args") if local else (),
        env=_texts(name, entry, "env") if local else {},
        cwd=_text(name, entry, "cwd") if local else None,
        url=None if local else str(url),
        headers={} if local else _texts(name, entry, "headers"),
        active=not entry.get("disabled", False),
    )


def _text(name: str, entry: dict[str, Any], key: str) -> str | None:
    value = entry.get(key)
    if value is not None and not isinstance(value, str):
        raise UsageProblem(f"The server {name!r} has a {key} that is not text.")
    return value


def _list(name: str, entry: dict[str, Any], key: str) -> tuple[str, ...]:
    value = entry.get(key) or []
    if not isinstance(value, list):
        raise UsageProblem(
            f"The server {name!r} has {key} that are not a list.",
            hint=f'Write each one by itself: "{key}": ["-y", "thing"].',
        )
    return tuple(str(item) for item in value)


def _texts(name: str, entry: dict[str, Any], key: str) -> dict[str, str]:
    value = entry.get(key) or {}
    if not isinstance(value, dict):
        raise UsageProblem(f"The server {name!r} has {key} that is not an object.")
    return {str(item): str(text) for item, text in value.items()}
