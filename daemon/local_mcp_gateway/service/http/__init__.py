"""The listening socket, and uvicorn on it."""

from typing import TYPE_CHECKING

from local_mcp_gateway.lazy import exports

if TYPE_CHECKING:
    from local_mcp_gateway.service.http.certificate import (
        CertificateFacts,
        ServerCertificate,
        check_certificate,
        names_in,
    )
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
        certificate=("CertificateFacts", "ServerCertificate", "check_certificate", "names_in"),
        listening_socket=("bind", "inherited", "is_loopback", "listeners", "url_of"),
        server=("LibraryWarnings", "serving"),
    )

__all__ = [
    "CertificateFacts",
    "LibraryWarnings",
    "ServerCertificate",
    "bind",
    "check_certificate",
    "inherited",
    "is_loopback",
    "listeners",
    "names_in",
    "serving",
    "url_of",
]
