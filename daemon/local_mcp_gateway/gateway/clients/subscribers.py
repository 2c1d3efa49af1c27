"""Which clients watch which resources: sessions that subscribed, and open `subscriptions/listen` streams.

All clients share one subscription at the server, so it is given up with the last of them, whatever their
profiles are and under which address each of them knows the resource. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from typing import Protocol

from local_mcp_gateway.gateway.catalog.union import uri_prefix


class Subscriber(Protocol):
    """One client that may watch resources."""

    @property
    def profile(self) -> str:
        """Return the name of its profile."""

    @property
    def subscriptions(self) -> Collection[str]:
        """Return what it watches, under the addresses that its profile shows."""


class Subscribers:
    """All clients of both kinds. What they are given may change."""

    def __init__(self, sessions: Iterable[Subscriber], listeners: Iterable[Subscriber]) -> None:
        self._sessions = sessions
        self._listeners = listeners

    def wanted(self, profiles: Collection[str]) -> set[tuple[str, str]]:
        """Return what clients of these profiles watch, each with the profile's name."""
        return {(each.profile, uri) for each in self._of(profiles) for uri in each.subscriptions}

    def watch(self, server: str, key: str, profiles: Collection[str]) -> bool:
        """Whether a client of these profiles watches what this server calls so."""
        addresses = set(addresses_of(server, key))
        return any(not addresses.isdisjoint(each.subscriptions) for each in self._of(profiles))

    def _of(self, profiles: Collection[str]) -> Iterator[Subscriber]:
        for each in chain(self._sessions, tuple(self._listeners)):
            if each.profile in profiles:
                yield each


def addresses_of(server: str, key: str) -> tuple[str, str]:
    """Return the addresses under which a profile may show a resource of this server."""
    return key, uri_prefix(server) + key
