"""Who may talk to the gateway: a foreign Host or Origin is a web page that rebinds DNS. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class OriginCheck:
    """Knows the names under which the gateway may be reached."""

    def __init__(self, hosts: tuple[str, ...], origins: tuple[str, ...]) -> None:
        self._hosts = LOOPBACK | {host.lower() for host in hosts}
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)
        self._admitted: set[tuple[str | None, str | None]] = set()

    def refusal(self, headers: Mapping[str, str]) -> str | None:
        """Return why a request is refused, or None to let it in."""
        host, origin = headers.get("host"), headers.get("origin")
        if (host, origin) in self._admitted:
            return None
        if host is not None and _hostname(f"//{host}") not in self._hosts:
            return f"Host {host!r} is not allowed"
        if origin is not None and not self._known(origin):
            return f"Origin {origin!r} is not allowed"
        if len(self._admitted) < 64:
            self._admitted.add((host, origin))
        return None

    def _known(self, origin: str) -> bool:
        return origin.lower() in self._origins or (
            origin.lower().startswith(("http://", "https://")) and _hostname(origin) in self._hosts
        )


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
