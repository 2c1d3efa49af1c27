"""Servers whose environment and headers are sealed: opened when they are started, and not before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from local_mcp_gateway.errors import GatewayError
from local_mcp_gateway.gateway.upstreams.lost import UpstreamLost
from local_mcp_gateway.store.secrets import has_sealed

if TYPE_CHECKING:
    from local_mcp_gateway.store.model import ServerDefinition

Unseal = Callable[["ServerDefinition"], "ServerDefinition"]
"""Returns a server with its values in plain. Reads files and computes: called in a thread."""


async def plain(server: ServerDefinition, unseal: Unseal) -> ServerDefinition:
    """Return the server as it is to be started; raises UpstreamLost while a value does not open."""
    if not has_sealed(server):
        return server
    try:
        return await asyncio.to_thread(unseal, server)
    except GatewayError as error:
        said, hint = error.message.removesuffix("."), error.hint.removesuffix(".")
        reason = f"{said[0].lower()}{said[1:]}; {hint[0].lower()}{hint[1:]}"
        raise UpstreamLost(reason, unsent=True) from None


async def same(new: ServerDefinition, old: ServerDefinition, unseal: Unseal) -> bool:
    """Tell whether they are the same server: one value may be sealed anew and be what it was."""
    if new == old:
        return True
    if replace(new, env={}, headers={}) != replace(old, env={}, headers={}):
        return False
    try:
        return await plain(new, unseal) == await plain(old, unseal)
    except UpstreamLost:
        return False
