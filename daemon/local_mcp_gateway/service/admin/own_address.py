"""Detect whether a server to add is this gateway itself. Pure.

An imported client configuration often lists the gateway that the client already uses. A server that is
not recognised here (another host name, a proxy in front) is detected when it is connected; see `hops`.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from local_mcp_gateway.errors import UsageProblem

if TYPE_CHECKING:
    from local_mcp_gateway.store import ServerDefinition

PORTS: Final = {"http": 80, "https": 443}
PROGRAMS: Final = frozenset({"local-mcp-gateway", "local_mcp_gateway"})
PORT_VARIABLE: Final = "LMG_GATEWAY__PORT"


@dataclass(frozen=True, slots=True)
class OwnAddress:
    """The address at which this gateway serves its clients."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """Return `http://host:port` for a client on this machine."""
        host = self.host.strip("[]")
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return f"http://{host}:{self.port}"
        if address.is_unspecified:
            host = "127.0.0.1" if address.version == 4 else "::1"
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def require_other(self, server: ServerDefinition) -> None:
        """Raise UsageProblem if the server is this gateway."""
        if self.is_behind(server):
            raise UsageProblem(
                f"The server {server.name!r} is this gateway itself, which would list itself without end.",
                hint="Add the servers that you want behind it.",
            )

    def is_behind(self, server: ServerDefinition) -> bool:
        """Tell whether the server's URL or command leads to this gateway."""
        if server.url is not None:
            return self._is(server.url)
        return server.command is not None and self._bridged((server.command, *server.args), server)

    def _is(self, url: str) -> bool:
        try:
            parts = urlsplit(url)
            port = parts.port or PORTS.get(parts.scheme)
        except ValueError:
            return False
        host, own = parts.hostname or "", self.host.strip("[]")
        here = host == own or (_is_local(host) and _is_local(own))
        return here and port == self.port

    def _bridged(self, words: tuple[str, ...], server: ServerDefinition) -> bool:
        """Tell whether a command runs `local-mcp-gateway stdio`, in whatever form it is started."""
        at = next(
            (i for i, word in enumerate(words) if PurePath(word).name in PROGRAMS), len(words)
        )
        given = words[at + 1 :]
        if "stdio" not in given or "--config" in given:
            return False  # another config file may mean another gateway
        for word, following in zip(given, (*given[1:], ""), strict=True):
            if word.startswith("--url"):
                return self._is(word.partition("=")[2] or following)
        return server.env.get(PORT_VARIABLE, str(self.port)) == str(self.port)


def _is_local(host: str) -> bool:
    """Tell whether a host is this machine; a wildcard address is too."""
    if not host or host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified
