"""The clients that subscribe to changes, and what waits for each: sessions, and `subscriptions/listen` streams."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from typing import Final, Protocol

import msgspec

from local_mcp_gateway.gateway.catalog import clashing
from local_mcp_gateway.gateway.protocol import edit, encode, jsonrpc, member, sse, versions

MOST_WAITING: Final = 1024
MOST_WAITING_BYTES: Final = 1024 * 1024
FLAGS: Final = {
    "notifications/tools/list_changed": "tools_list_changed",
    "notifications/prompts/list_changed": "prompts_list_changed",
    "notifications/resources/list_changed": "resources_list_changed",
}


class SubscriptionFilter(msgspec.Struct, rename="camel", omit_defaults=True):
    """What a `subscriptions/listen` asks for."""

    tools_list_changed: bool = False
    prompts_list_changed: bool = False
    resources_list_changed: bool = False
    resource_subscriptions: tuple[str, ...] = ()


class SubscriptionStream:
    """An open `subscriptions/listen` stream; a client that does not read is disconnected."""

    def __init__(
        self, profile: str, identity: bytes, wanted: SubscriptionFilter, token: str = ""
    ) -> None:
        self.profile = profile
        self.token = token
        """The id of the token that its client showed, "" for none."""
        self._wanted = wanted
        self._mark = {versions.SUBSCRIPTION_KEY: identity}
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._waiting: set[bytes] = set()
        self._waiting_bytes = 0
        self._ended = False

    def enqueue(self, method: str, params: bytes, uri: str | None) -> None:
        """Enqueue a change notification, if the client asked for its kind."""
        wanted = method in FLAGS and getattr(self._wanted, FLAGS[method])
        if wanted or (uri is not None and uri in self._wanted.resource_subscriptions):
            meta = edit(member(params, "_meta"), self._mark)
            self._put(jsonrpc.notification(method, edit(params, {"_meta": meta})))

    @property
    def subscriptions(self) -> tuple[str, ...]:
        """Return the URIs that the client watches."""
        return self._wanted.resource_subscriptions

    def acknowledge(self) -> None:
        """Enqueue the acknowledgement of what will be delivered."""
        meta = msgspec.Raw(edit(b"", self._mark))
        body = encode({"_meta": meta, "notifications": self._wanted})
        self._put(jsonrpc.notification("notifications/subscriptions/acknowledged", body))

    async def next_event(self) -> bytes | None:
        """Return the next event; None at the end."""
        event = await self._queue.get()
        if event is not None:
            self._waiting.discard(event)
            self._waiting_bytes -= len(event)
        return event

    def end(self) -> None:
        """End the stream after its queued messages."""
        if not self._ended:
            self._ended = True
            self._queue.put_nowait(None)

    def _put(self, message: bytes) -> None:
        event = sse.render(message)
        if self._ended or event in self._waiting:
            return  # the same message is queued already
        waiting = self._queue.qsize()
        if waiting < MOST_WAITING and self._waiting_bytes < MOST_WAITING_BYTES:
            self._waiting.add(event)
            self._waiting_bytes += len(event)
            self._queue.put_nowait(event)
        else:  # a message it needs was dropped, so it has to subscribe again
            while not self._queue.empty():
                self._queue.get_nowait()
            self.end()


class Subscriber(Protocol):
    """One client that may watch resources."""

    @property
    def profile(self) -> str:
        """Return the name of its profile."""

    @property
    def subscriptions(self) -> Collection[str]:
        """Return what it watches, under the URIs that its profile shows."""


class Subscribers:
    """All clients of both kinds: sessions, and open `subscriptions/listen` streams."""

    def __init__(self, sessions: Iterable[Subscriber]) -> None:
        self.streams: set[SubscriptionStream] = set()
        self._sessions = sessions

    def subscribed(self, profiles: Collection[str]) -> set[tuple[str, str]]:
        """Return what clients of these profiles watch, each with the profile's name."""
        return {(each.profile, uri) for each in self._of(profiles) for uri in each.subscriptions}

    def watch(self, server: str, key: str, profiles: Collection[str]) -> bool:
        """Return whether a client of these profiles watches this URI of the server."""
        addresses = set(addresses_of(server, key))
        return any(not addresses.isdisjoint(each.subscriptions) for each in self._of(profiles))

    def _of(self, profiles: Collection[str]) -> Iterator[Subscriber]:
        for each in chain(self._sessions, tuple(self.streams)):
            if each.profile in profiles:
                yield each


def addresses_of(server: str, key: str) -> tuple[str, str]:
    """Return the URIs under which a profile may show a resource of this server."""
    return key, clashing(server, key)
