"""A client's request, on its way from its door to the server that it is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.clients.sessions import Session
    from local_mcp_gateway.gateway.upstreams.call import Caller


class Request(msgspec.Struct, eq=False):
    """One request of a client. `server` and `target` are filled in for the log of calls."""

    profile: str
    method: str
    params: bytes
    caller: Caller
    session: Session | None = None
    modern: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    repeats: bool = False
    """Whether the client itself repeats arguments as `headers`; else the gateway does."""
    server: str | None = None
    target: str | None = None
