"""Whether a server that somebody adds is this gateway itself. Pure.

A client's file of servers, imported, often holds the gateway that this very client uses. What is not
recognised here (another name of this machine, a proxy before it) is when it is connected, see `hops`.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from local_mcp_gateway.errors import UsageProblem

if TYPE_CHECKING:
    from local_mcp_gateway.store.model import ServerDefinition

PORTS: Final = {"http": 80, "https": 443}
PROGRAMS: Final = frozenset({"local-mcp-gateway", "local_mcp_gateway"})
PORT_VARIABLE: Final = "LMG_GATEWAY__PORT"


@dataclass(frozen=True, slots=True)
class OwnAddress:
    """Where this gateway serves its clients."""

    host: str
    port: int

    def require_other(self, server: ServerDefinition) -> None:
        """Refuse a server that is this gateway. Raises UsageProblem."""
        if self.is_behind(server):
            raise UsageProblem(
                f"The server {server.name!r} is this gateway itself, which would list itself without end.",
                hint="Add the servers that you want behind it.",
            )

    def is_behind(self, server: ServerDefinition) -> bool:
        """Tell whether this server's URL or command leads here."""
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
        """Tell whether a command is `local-mcp-gateway stdio`, however it is started."""
        at = next(
            (i for i, word in enumerate(words) if PurePath(word).name in PROGRAMS), len(words)
        )
        given = words[at + 1 :]
        if "stdio" not in given or "--config" in given:
            return False  # with another file it may be another gateway
        for word, following in zip(given, (*given[1:], ""), strict=True):
            if word.startswith("--url"):
                return self._is(word.partition("=")[2] or following)
        return server.env.get(PORT_VARIABLE, str(self.port)) == str(self.port)


def _is_local(host: str) -> bool:
    """Tell whether a host is this machine for itself; one that listens everywhere is, too."""
    if not host or host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified
