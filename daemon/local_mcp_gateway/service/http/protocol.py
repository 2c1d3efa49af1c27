"""An end to the head of a request: uvicorn gathers headers as long as they come, whoever sends them."""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEADER_BYTES: Final = 1024 * 1024
"""How large request line and headers may be together. Bodies are bounded where they are read."""


class HeaderLimitProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which closes a connection whose head does not end."""

    _head_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Take what came. A request has a cycle of its own once its head has ended."""
        super().data_received(data)
        if getattr(self.cycle, "scope", None) is self.scope:
            self._head_bytes = 0
            return
        self._head_bytes += len(data)
        if self._head_bytes > MOST_HEADER_BYTES and not self.transport.is_closing():
            self.send_400_response("The head of the request is too large.")


MOST_COALESCED_BYTES: Final = 64 * 1024
"""What is kept at most: a large answer is sent as it comes, so that its back-pressure is felt."""


class CoalescingTransport:
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
        if self._bytes > MOST_COALESCED_BYTES:
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


class CoalescingProtocol(HeaderLimitProtocol):
    """uvicorn's protocol on such a transport."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin a connection."""
        super().connection_made(cast("asyncio.Transport", CoalescingTransport(transport)))
