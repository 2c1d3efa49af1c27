"""An end to the head of a request: uvicorn gathers headers as long as they come, whoever sends them."""

from __future__ import annotations

from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_BYTES: Final = 1024 * 1024
"""How large request line and headers may be together. Bodies are bounded where they are read."""


class BoundedHeadProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which closes a connection whose head does not end."""

    _head_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Take what came. A request has a cycle of its own once its head has ended."""
        super().data_received(data)
        if getattr(self.cycle, "scope", None) is self.scope:
            self._head_bytes = 0
            return
        self._head_bytes += len(data)
        if self._head_bytes > MOST_BYTES and not self.transport.is_closing():
            self.send_400_response("The head of the request is too large.")
