"""Which log messages servers send: each client sets a level, and a server is told what lets the most through.

Only servers that are there are told; the others hear it when they come. One that does not answer keeps
no client waiting.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.gateway.clients.sessions import LEVELS, Sessions
from local_mcp_gateway.gateway.protocol.envelope import (
    INVALID_PARAMS,
    Answer,
    encode,
    failure,
    member,
    success,
)
from local_mcp_gateway.gateway.upstreams.call import Call
from local_mcp_gateway.gateway.upstreams.connection import Silent

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.relay.registry import Registry
    from local_mcp_gateway.gateway.relay.request import Request
    from local_mcp_gateway.gateway.upstreams.upstream import Upstream

ANSWERED_S: Final = 1.0
"""How long a client waits for servers to take a level."""
METHOD: Final = "logging/setLevel"
_CLIENT: Final = Silent()
"""Stands for clients of the handshake era: servers that speak both take the level there."""


def takes_levels(upstream: Upstream) -> bool:
    """Whether this server sends log messages, and is there to be told of which level."""
    identity = upstream.identity if upstream.connected else None
    return identity is not None and "logging" in identity.capabilities


async def set_level(request: Request, registry: Registry, sessions: Sessions) -> Answer:
    """Take the level that a client sets; an error only where all servers that answered gave one."""
    level = member(request.params, "level").decode("utf-8", "replace").strip('"')
    if level not in LEVELS:
        return failure(INVALID_PARAMS, f"Invalid params: no log level {level!r}")
    if request.session is not None:
        request.session.level, request.session.level_was_set = LEVELS.index(level), True
    telling = []
    for upstream in filter(takes_levels, registry.members(request.profile)):
        least = sessions.least_level(registry.profiles_of(upstream.name))
        params = request.params if least in {None, level} else encode({"level": least})
        telling.append(asyncio.create_task(_tell(upstream, params)))
    done, _ = await asyncio.wait(telling, timeout=ANSWERED_S) if telling else ((), ())
    answers = [task.result() for task in done]
    return answers[0] if answers and all(answer.failed for answer in answers) else success({})


async def _tell(upstream: Upstream, params: bytes) -> Answer:
    return await upstream.call(Call(METHOD, params, _CLIENT))
