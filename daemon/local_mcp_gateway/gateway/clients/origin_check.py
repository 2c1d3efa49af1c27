"""Check Host and Origin against DNS rebinding by web pages. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_HOST: Final = re.compile(r"(?:\[([\da-f:.]+)\]|([\w.-]+))(?::\d{0,5})?", re.ASCII | re.IGNORECASE)
"""A name or an address, with or without a port (RFC 9110, 7.2), and no user info."""


class OriginCheck:
    """Knows the names under which the gateway may be reached."""

    def __init__(self, hosts: tuple[str, ...], origins: tuple[str, ...]) -> None:
        self._hosts = LOOPBACK | {host.lower() for host in hosts}
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)
        self._admitted: set[tuple[str | None, str | None]] = set()

    def refusal(self, headers: Mapping[str, str]) -> str | None:
        """Return why a request is refused, or None to accept it."""
        host, origin = headers.get("host"), headers.get("origin")
        if (host, origin) in self._admitted:
            return None
        if host is None:
            return "The request names no Host"
        if _hostname(host) not in self._hosts:
            return f"Host {host!r} is not allowed; the setting gateway.allowed_hosts lists more"
        if origin is not None and not self._known(origin.lower()):
            return (
                f"Origin {origin!r} is not allowed; the setting gateway.allowed_origins lists more"
            )
        if len(self._admitted) < 64:
            self._admitted.add((host, origin))
        return None

    def _known(self, origin: str) -> bool:
        scheme, _, host = origin.partition("://")
        return origin in self._origins or (
            scheme in {"http", "https"} and _hostname(host) in self._hosts
        )


def _hostname(host: str) -> str | None:
    """Return the name or address in a Host header, in lower case; None where it is malformed."""
    found = _HOST.fullmatch(host)
    return None if found is None else (found[1] or found[2]).lower()
