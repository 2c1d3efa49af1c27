"""The address of this gateway for its clients, and whether a server to add is this gateway itself.

An imported client configuration often lists the gateway that the client already uses. A server that is
not recognised here (another host name, a proxy in front) is detected when it is connected; see `hops`.
"""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.service.http import names_in

if TYPE_CHECKING:
    from local_mcp_gateway.config import Settings
    from local_mcp_gateway.store import ServerDefinition

PORTS: Final = {"http": 80, "https": 443}
PROGRAMS: Final = frozenset({"local-mcp-gateway", "local_mcp_gateway"})
PORT_VARIABLE: Final = "LMG_GATEWAY__PORT"


@dataclass(frozen=True, slots=True)
class OwnAddress:
    """The address at which this gateway serves its clients."""

    host: str
    port: int
    names: tuple[str, ...] | None = None
    """The names in its certificate; None without TLS."""

    @classmethod
    def of(cls, settings: Settings) -> OwnAddress:
        """Return the address in the settings; a running gateway may have been given another one."""
        files, gateway = settings.tls_files, settings.gateway
        return cls(gateway.host, gateway.port, None if files is None else names_in(files[0]))

    @property
    def url(self) -> str:
        """Return `http://host:port` for a client on this machine; with TLS, `https:` and a name that it can check."""
        scheme, host = ("http" if self.names is None else "https"), self._named()
        return (
            f"{scheme}://[{host}]:{self.port}" if ":" in host else f"{scheme}://{host}:{self.port}"
        )

    def _named(self) -> str:
        host = self.host.strip("[]")
        with suppress(ValueError):
            address = ipaddress.ip_address(host)
            if address.is_unspecified:
                host = "127.0.0.1" if address.version == 4 else "::1"
        if not self.names or host in self.names:
            return host
        if _is_local(host) and "localhost" in self.names:
            return "localhost"
        return next((name for name in self.names if not name.startswith("*")), host)

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
            return self.leads_here(server.url)
        return server.command is not None and self._bridged((server.command, *server.args), server)

    def leads_here(self, url: str) -> bool:
        """Tell whether a URL is one of this gateway."""
        try:
            parts = urlsplit(url)
            port = parts.port or PORTS.get(parts.scheme)
        except ValueError:
            return False
        host, own = parts.hostname or "", self.host.strip("[]")
        here = host in {own, *(self.names or ())} or (_is_local(host) and _is_local(own))
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
                return self.leads_here(word.partition("=")[2] or following)
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
