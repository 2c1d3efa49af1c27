"""uvicorn's HTTP protocol with a limit on the request head and with coalesced writes.

uvicorn alone collects headers without a limit.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEADER_BYTES: Final = 1024 * 1024
"""Limit for the request line and headers together. Bodies are limited where they are read."""


class HeaderLimitProtocol(HttpToolsProtocol):
    """Close a connection whose request head exceeds the limit."""

    _head_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Take received bytes. A request has its own cycle once its head is complete."""
        super().data_received(data)
        if getattr(self.cycle, "scope", None) is self.scope:
            self._head_bytes = 0
            return
        self._head_bytes += len(data)
        if self._head_bytes > MOST_HEADER_BYTES and not self.transport.is_closing():
            self.send_400_response("The head of the request is too large.")


MOST_COALESCED_BYTES: Final = 64 * 1024
"""Most that is queued: a large response is sent as it comes, so that back-pressure works."""


class CoalescingTransport:
    """A transport that joins the writes of one event loop iteration."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._waiting: list[bytes] = []
        self._bytes = 0

    def write(self, data: bytes) -> None:
        """Queue bytes to be sent in this iteration."""
        if not self._waiting:
            self._loop.call_soon(self.flush)
        self._waiting.append(data)
        self._bytes += len(data)
        if self._bytes > MOST_COALESCED_BYTES:
            self.flush()

    def flush(self) -> None:
        """Send what is queued."""
        if self._waiting:
            waiting, self._waiting, self._bytes = self._waiting, [], 0
            self._transport.write(waiting[0] if len(waiting) == 1 else b"".join(waiting))

    def close(self) -> None:
        """Send what is queued and close."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        """Delegate everything else to the real transport."""
        return getattr(self._transport, name)


class CoalescingProtocol(HeaderLimitProtocol):
    """uvicorn's protocol on a coalescing transport."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wrap the transport of a new connection."""
        super().connection_made(cast("asyncio.Transport", CoalescingTransport(transport)))
