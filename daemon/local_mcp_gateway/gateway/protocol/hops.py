"""Detect request loops between gateways. Pure.

A gateway configured as its own server would list its tools under ever longer names and answer one call
with endless calls. So each of its requests to a server names the gateways, and the profile of each, on
whose behalf it is made. A profile of another gateway may be a server of one of ours; only in a loop
does the same one appear twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import quote

HEADER: Final = "local-mcp-gateway-via"
VARIABLE: Final = "LOCAL_MCP_GATEWAY_VIA"
"""The environment variable that passes the hops to a child, for a bridge to a gateway."""
REFUSAL: Final = (
    "This gateway would be its own server: the request came from this very profile. Remove the server"
    " that leads here"
)


class Hops:
    """The other gateways that have requests open here, and the hops sent to our servers.

    Lists are fetched and servers connected for all clients that wait for them. So a request names every
    gateway that has a request or a stream open here, at a profile with that server.
    """

    def __init__(self, own: str, profiles_of: Callable[[str], frozenset[str]]) -> None:
        self._own = own
        self._profiles_of = profiles_of
        self._guests: dict[str, Counter[str]] = {}
        self._said: dict[frozenset[str], str] = {}

    def comes_back(self, profile: str, via: str) -> bool:
        """Return whether a request to this profile was made on its own behalf."""
        return self._named(profile) in _read(via)

    @contextmanager
    def guest(self, profile: str, via: str) -> Iterator[None]:
        """Count a request to this profile that comes from other gateways, while it is open."""
        guests, named = self._guests.setdefault(profile, Counter()), Counter(_read(via))
        guests.update(named)
        try:
            yield
        finally:
            guests.subtract(named)
            for name in named:
                if not guests[name]:
                    del guests[name]

    def onward(self, server: str) -> str:
        """Return the hops to send with a request to this server."""
        profiles = self._profiles_of(server)
        said = self._said.get(profiles)
        if said is None:
            said = ", ".join(map(self._named, sorted(profiles))) or self._own
            self._said[profiles] = said
        if not self._guests:
            return said
        guests = {name for profile in profiles for name in self._guests.get(profile, ())}
        return ", ".join((said, *sorted(guests))) if guests else said

    def _named(self, profile: str) -> str:
        return f"{self._own}/{quote(profile, safe='')}"


def _read(via: str) -> list[str]:
    return via.replace(",", " ").split()
