"""Errors of upstream requests that never got a response."""

from __future__ import annotations


class UpstreamDisconnected(Exception):
    """The connection ended or could not be made; `unsent` when the server never received the request."""

    def __init__(self, reason: str, *, unsent: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.unsent = unsent


class SessionExpired(UpstreamDisconnected):
    """The server does not know our session, so it never processed the request."""

    def __init__(self) -> None:
        super().__init__("the server has lost its session", unsent=True)
