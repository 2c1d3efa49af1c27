"""The way of a request through gateways: one that comes back to where it was is a loop. Pure.

A gateway that is its own server lists its tools under ever longer names, and answers one call with
calls without end. So each of its requests to a server names the gateways, and which profile of each,
that it is for. A profile of another gateway may stand behind one of ours; only in a loop is one and
the same met twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import quote

HEADER: Final = "local-mcp-gateway-via"
VARIABLE: Final = "LOCAL_MCP_GATEWAY_VIA"
"""The environment variable that says it to a child, for a bridge that leads to a gateway."""
REFUSAL: Final = (
    "This gateway would be its own server: the request came from this very profile. Remove the server"
    " that leads here"
)


class Hops:
    """Who asks here on behalf of other gateways just now, and what our servers are told of it.

    Lists are fetched and servers connected for all who wait for them: so a request says of every
    gateway that has a request or a stream open here, at a profile with that server, that it is for it.
    """

    def __init__(self, own: str, profiles_of: Callable[[str], frozenset[str]]) -> None:
        self._own = own
        self._profiles_of = profiles_of
        self._guests: dict[str, Counter[str]] = {}
        self._said: dict[frozenset[str], str] = {}

    def comes_back(self, profile: str, via: str) -> bool:
        """Tell whether a request to this profile is for this profile."""
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
        """Return what a request to this server says."""
        profiles = self._profiles_of(server)
        said = self._said.get(profiles)
        if said is None:
            said = ", ".join(map(self._named, sorted(profiles))) or self._own
            self._said[profiles] = said
        guests = {name for profile in profiles for name in self._guests.get(profile, ())}
        return ", ".join((said, *sorted(guests))) if guests else said

    def _named(self, profile: str) -> str:
        return f"{self._own}/{quote(profile, safe='')}"


def _read(via: str) -> list[str]:
    return via.replace(",", " ").split()
