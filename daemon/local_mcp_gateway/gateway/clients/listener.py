"""A client's open `subscriptions/listen`: what it asked for, and the news that wait for it."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from local_mcp_gateway.gateway.protocol import envelope, eras, sse
from local_mcp_gateway.gateway.protocol.envelope import edit, encode, member

MOST_WAITING: Final = 1024
MOST_WAITING_BYTES: Final = 1024 * 1024
FLAGS: Final = {
    "notifications/tools/list_changed": "tools_list_changed",
    "notifications/prompts/list_changed": "prompts_list_changed",
    "notifications/resources/list_changed": "resources_list_changed",
}


class Filter(msgspec.Struct, rename="camel", omit_defaults=True):
    """What a `subscriptions/listen` asks for."""

    tools_list_changed: bool = False
    prompts_list_changed: bool = False
    resources_list_changed: bool = False
    resource_subscriptions: tuple[str, ...] = ()


class Listener:
    """An open `subscriptions/listen` stream; a client that does not read is cut off."""

    def __init__(self, profile: str, identity: bytes, wanted: Filter) -> None:
        self.profile = profile
        self._wanted = wanted
        self._mark = {eras.SUBSCRIPTION_KEY: identity}
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._waiting: set[bytes] = set()
        self._waiting_bytes = 0
        self._ended = False

    def offer(self, method: str, params: bytes, uri: str | None) -> None:
        """Take a change notification, if the client asked for its kind."""
        wanted = method in FLAGS and getattr(self._wanted, FLAGS[method])
        if wanted or (uri is not None and uri in self._wanted.resource_subscriptions):
            meta = edit(member(params, "_meta"), self._mark)
            self._put(envelope.notification(method, edit(params, {"_meta": meta})))

    @property
    def subscriptions(self) -> tuple[str, ...]:
        """Return the URIs that the client watches."""
        return self._wanted.resource_subscriptions

    def acknowledge(self) -> None:
        """Say first what will be delivered."""
        meta = msgspec.Raw(edit(b"", self._mark))
        body = encode({"_meta": meta, "notifications": self._wanted})
        self._put(envelope.notification("notifications/subscriptions/acknowledged", body))

    async def following(self) -> bytes | None:
        """Return the next event; None at the end."""
        event = await self._queue.get()
        if event is not None:
            self._waiting.discard(event)
            self._waiting_bytes -= len(event)
        return event

    def end(self) -> None:
        """End the stream, after what waits in it."""
        if not self._ended:
            self._ended = True
            self._queue.put_nowait(None)

    def _put(self, message: bytes) -> None:
        event = sse.render(message)
        if self._ended or event in self._waiting:
            return  # what waits already says no more when it comes twice
        waiting = self._queue.qsize()
        if waiting < MOST_WAITING and self._waiting_bytes < MOST_WAITING_BYTES:
            self._waiting.add(event)
            self._waiting_bytes += len(event)
            self._queue.put_nowait(event)
        else:  # what it had to know is lost, so it has to begin anew
            while not self._queue.empty():
                self._queue.get_nowait()
            self.end()
