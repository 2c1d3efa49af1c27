"""Tools that are new, or not described as they were when they were approved: show and approve them."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.store import memory, queries
from local_mcp_gateway.store.model import CatalogKind

if TYPE_CHECKING:
    from local_mcp_gateway.database.pool import ConnectionPool


async def altered_tools(database: ConnectionPool, server_id: str) -> list[dict[str, Any]]:
    """Return each tool of a server that differs from what was approved: before (null: new) and after."""
    return [
        {"tool": name, "approved": _read(before), "offered": json.loads(after)}
        for name, (before, after) in (await _altered(database, server_id)).items()
    ]


def _read(approved: str | None) -> Any:
    with suppress(ValueError):  # somebody has edited it: then nothing is known
        return json.loads(approved or "null")
    return None


async def approve_tools(database: ConnectionPool, arguments: dict[str, Any]) -> object:
    """Approve tools as they are offered now: the given ones, or all.

    `tools` maps a name to what the person has looked at: a tool that changed once more since then is
    refused, and so is one that is not altered.
    """
    name = arguments["name"]
    server = await queries.get_server(database, name)
    altered = await _altered(database, server.id)
    seen: dict[str, Any] = arguments["tools"]
    for tool, looked_at in seen.items():
        if tool not in altered:
            raise UsageProblem(
                f"The tool {tool!r} of server {name!r} is not waiting for an approval.",
                hint=f"See `server show {name}`.",
            )
        if json.loads(altered[tool][1]) != looked_at:
            raise UsageProblem(
                f"The tool {tool!r} of server {name!r} has changed once more.",
                hint=f"Look at it again: `server approve {name} {tool}`.",
            )
    approved = [(server.id, tool, altered[tool][1]) for tool in seen]
    await memory.save_catalogs(database, (), approved)
    return {"approved": list(seen)}


async def _altered(database: ConnectionPool, server_id: str) -> dict[str, tuple[str | None, str]]:
    from local_mcp_gateway.gateway.catalog.approval import differs
    from local_mcp_gateway.gateway.catalog.union import remembered

    approved = (await memory.load_approved(database)).get(server_id, {})
    offered = await memory.get_catalog(database, server_id, CatalogKind.TOOLS)
    return {
        item.key: (approved.get(item.key), item.raw.decode())
        for item in remembered(CatalogKind.TOOLS, offered)
        if item.key not in approved or differs(approved[item.key].encode(), item.raw)
    }
