"""Read a body that may be compressed, a bounded step at a time.

The client session does not decompress by itself: a few hundred kilobytes become hundreds of megabytes,
which are then in memory before anyone could count them.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.gateway.upstreams.lost import UpstreamLost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiohttp

STEP_BYTES: Final = 256 * 1024
ACCEPTED: Final = "gzip, deflate"
_BITS: Final = {"gzip": 31, "x-gzip": 31, "deflate": zlib.MAX_WBITS}


def encoding_of(reply: aiohttp.ClientResponse) -> str:
    """Return how the body is encoded; nothing when it is as it is."""
    encoding = reply.headers.get("Content-Encoding", "").strip().lower()
    return "" if encoding == "identity" else encoding


def chunks_of(reply: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Yield the body as it comes. Raises UpstreamLost when it cannot be decoded."""
    encoding = encoding_of(reply)
    chunks = reply.content.iter_any()
    return decoded(encoding, chunks) if encoding else chunks


async def decoded(encoding: str, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield what compressed chunks hold, at most `STEP_BYTES` at once."""
    if encoding not in _BITS:
        raise UpstreamLost(f"it answered in an encoding that was not asked for: {encoding}")
    stream = zlib.decompressobj(_BITS[encoding])
    try:
        async for chunk in chunks:
            rest = chunk
            while rest and not stream.eof:
                part = stream.decompress(rest, STEP_BYTES)
                rest = stream.unconsumed_tail
                if part:
                    yield part
        while part := stream.decompress(stream.unconsumed_tail, STEP_BYTES):
            yield part
    except zlib.error as error:
        raise UpstreamLost(f"its {encoding} cannot be read: {error}") from None
    if not stream.eof:
        raise UpstreamLost("it broke off its answer")
