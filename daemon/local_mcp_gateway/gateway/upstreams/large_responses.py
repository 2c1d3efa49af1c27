"""Stream a response too large to buffer: recognise it by its start, pass its bytes on as they arrive.

Only the id is replaced, which is in the first or the last bytes, and members that the other protocol
version needs are added at the front of the result. The bytes between are not inspected. Pure.

Of a line beyond every limit only the two ends are kept, which tell what it answered.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from local_mcp_gateway.gateway.upstreams.connection import UpstreamDisconnected

HELD_BYTES: Final = 1024 * 1024
"""A response of up to this size is buffered and decoded."""
END_BYTES: Final = 4096
"""How much of the end is held back until the response proves complete; and kept of each end of a line too long."""

_STRING: Final = rb'"(?:[^"\\]|\\.)*"'
_SCALAR: Final = rb"(?:" + _STRING + rb"|[-+.0-9eE]+|true|false|null)"
_MEMBER: Final = re.compile(rb"\s*(" + _STRING + rb")\s*:\s*(" + _SCALAR + rb")\s*,")
_OPENING: Final = re.compile(rb"\s*\{")
_RESULT: Final = re.compile(rb'\s*"result"\s*:\s*\{')
_VERSION: Final = rb'(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?'
_LAST_ID: Final = re.compile(
    rb'\}\s*%s,\s*"id"\s*:\s*(%s)\s*%s\}\s*\Z' % (_VERSION, _SCALAR, _VERSION)
)
"""Only scalars may follow the brace that this begins with, so that brace is the result's."""


class StreamedResponse:
    """The response to the request `identity`, of which `start` has arrived. Created by `begin`."""

    def __init__(
        self,
        start: bytes,
        rest: AsyncIterator[bytes],
        identity: bytes,
        result_at: int,
        id_at: tuple[int, int] | None,
        added: bytes,
    ) -> None:
        self._start = start
        self._rest = rest
        self._identity = identity
        self._result_at = result_at
        self._id_at = id_at
        self._added = added

    async def parts(self, identity: bytes) -> AsyncIterator[bytes]:
        """Yield the response under another id. Raises UpstreamDisconnected when it is cut off."""
        head, kept = self._start[: self._result_at], self._start[self._result_at :]
        self._start = b""
        if self._id_at is not None:
            head = head[: self._id_at[0]] + identity + head[self._id_at[1] :]
        yield head + self._added
        async for part in self._rest:
            kept += part
            if len(kept) > END_BYTES:
                yield kept[:-END_BYTES]
                kept = kept[-END_BYTES:]
        yield self._end(kept, identity)

    def _end(self, end: bytes, identity: bytes) -> bytes:
        """Replace the id if it is among the last members.

        Only scalars may follow the brace that the match begins with, so that brace is the result's.
        """
        if self._id_at is not None and end.rstrip().endswith(b"}"):
            return end
        own = rb'\}\s*%s,\s*"id"\s*:\s*(%s)\s*%s\}\s*\Z' % (
            _VERSION,
            re.escape(self._identity),
            _VERSION,
        )
        found = None if self._id_at is not None else re.search(own, end)
        if found is None:
            raise UpstreamDisconnected("it broke off its answer")
        return end[: found.start(1)] + identity + end[found.end(1) :]


def identity_in(head: bytes, tail: bytes) -> bytes | None:
    """Return the id of a response from its first and last bytes; None if neither shows it."""
    _, id_at = _members(head)
    if id_at is not None:
        return head[slice(*id_at)]
    found = _LAST_ID.search(tail)
    return None if found is None else found[1]


def _members(start: bytes) -> tuple[int, tuple[int, int] | None]:
    """Return where the leading scalars of a response end, and where its id is among them."""
    opening, id_at = _OPENING.match(start), None
    at = len(start) if opening is None else opening.end()
    while (member := _MEMBER.match(start, at)) is not None:
        if member[1] == b'"id"':
            id_at = member.span(2)
        at = member.end()
    return at, id_at


Relay = Callable[[StreamedResponse], Awaitable[int]]
"""Streams a large response to a client; returns its size."""


def begin(
    start: bytes, rest: AsyncIterator[bytes], identity: bytes, added: bytes = b""
) -> StreamedResponse | None:
    """Return the response that begins with `start`; None if it is not a response with a result.

    `added` are members for the front of the result, each with its comma.
    """
    at, id_at = _members(start)
    result = _RESULT.match(start, at)
    if result is None or (id_at is not None and start[slice(*id_at)] != identity):
        return None
    return StreamedResponse(start, rest, identity, result.end(), id_at, added)


@dataclass(frozen=True, slots=True)
class LineEnds:
    """The kept ends of a line beyond the limit. They overlap in a line that is not much longer."""

    head: bytes
    tail: bytes
