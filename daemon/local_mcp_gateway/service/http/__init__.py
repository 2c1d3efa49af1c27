"""The listening socket, and uvicorn on it."""

from typing import TYPE_CHECKING

from local_mcp_gateway.lazy import exports

if TYPE_CHECKING:
    from local_mcp_gateway.service.http.listening_socket import (
        bind,
        inherited,
        is_loopback,
        listeners,
        url_of,
    )
    from local_mcp_gateway.service.http.server import LibraryWarnings, serving
else:
    __getattr__ = exports(
        __name__,
        listening_socket=("bind", "inherited", "is_loopback", "listeners", "url_of"),
        server=("LibraryWarnings", "serving"),
    )

__all__ = [
    "LibraryWarnings",
    "bind",
    "inherited",
    "is_loopback",
    "listeners",
    "serving",
    "url_of",
]
