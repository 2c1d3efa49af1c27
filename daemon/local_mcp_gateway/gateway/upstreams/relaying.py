"""Whether an answer from an HTTP server is relayed as it comes, and how it is read meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from local_mcp_gateway.gateway.protocol import eras
from local_mcp_gateway.gateway.upstreams import large
from local_mcp_gateway.gateway.upstreams.lost import UpstreamLost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from local_mcp_gateway.gateway.protocol.envelope import Answer
    from local_mcp_gateway.gateway.protocol.sse import Parser
    from local_mcp_gateway.gateway.upstreams.call import Call


async def relayed(start: bytes, rest: AsyncIterator[bytes], call: Call) -> Answer | None:
    """Hand a large answer to the client as it comes; None when it has to be held."""
    relay = None if call.whole else call.caller.relay
    if relay is None:
        return None
    added = b""
    if call.modern and not call.served_modern:
        added = eras.modern_members(start, call.method)
    elif call.served_modern and not call.modern and not eras.is_complete(start):
        return None  # it may ask for input, which the gateway then gets from the client
    found = large.begin(start, _extending(rest, call), call.identity, added)
    return None if found is None else await call.relayed(found, relay)


async def _extending(parts: AsyncIterator[bytes], call: Call) -> AsyncIterator[bytes]:
    """Yield what comes; the call goes on as long as something does."""
    async for part in parts:
        call.extend()
        yield part


async def rest_of_event(parser: Parser, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield what is left of the event that is under way. Raises UpstreamLost when it breaks off."""
    parser.hand_over()
    async for chunk in chunks:
        part, ended = parser.pass_on(chunk)
        yield part
        if ended:
            return
    raise UpstreamLost("it broke off its answer")
