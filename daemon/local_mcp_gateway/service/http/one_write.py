"""Send the head and the body of a response with one system call.

uvicorn writes them one after the other, and asyncio sends each at once: on a loopback connection the
second `send` is the dearest thing that a small answer costs, here and at the client, which is woken
twice. What is written in one turn of the event loop is sent at its end.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

from local_mcp_gateway.service.http.bounded_head import BoundedHeadProtocol

MOST_BYTES: Final = 64 * 1024
"""What is kept at most: a large answer is sent as it comes, so that its back-pressure is felt."""


class Joining:
    """A transport that joins what is written in one turn of the loop."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._waiting: list[bytes] = []
        self._bytes = 0

    def write(self, data: bytes) -> None:
        """Take bytes, to be sent soon."""
        if not self._waiting:
            self._loop.call_soon(self.flush)
        self._waiting.append(data)
        self._bytes += len(data)
        if self._bytes > MOST_BYTES:
            self.flush()

    def flush(self) -> None:
        """Send what waits."""
        if self._waiting:
            waiting, self._waiting, self._bytes = self._waiting, [], 0
            self._transport.write(waiting[0] if len(waiting) == 1 else b"".join(waiting))

    def close(self) -> None:
        """Send what waits, and close."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        """Be the transport itself in everything else."""
        return getattr(self._transport, name)


class OneWriteProtocol(BoundedHeadProtocol):
    """uvicorn's protocol on such a transport."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin a connection."""
        super().connection_made(cast("asyncio.Transport", Joining(transport)))
