"""Keep `subscriptions/listen` streams open at a stateless server.

One stream reports list changes. Each resource that clients watch has one more, so that adding one
interrupts no other. They replace `resources/subscribe`, which the stateless protocol does not have.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.gateway.protocol import (
    Answer,
    decode_any,
    edit,
    encode,
    failure,
    jsonrpc,
    member,
    versions,
)
from local_mcp_gateway.gateway.upstreams.connection import Call, Events, UpstreamDisconnected

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.tasks import TaskScope

LISTS: Final = {
    "toolsListChanged": True,
    "promptsListChanged": True,
    "resourcesListChanged": True,
}
TAKEN: Final = frozenset({"resources/subscribe", "resources/unsubscribe", "logging/setLevel"})
"""Handshake methods that `Subscriptions.take` handles in a stateless server's place."""


class SubscriptionOwner:
    """Receives the notifications of one stream."""

    capabilities = b"{}"
    log_level: str | None = None
    relay = None
    client = None

    def __init__(self, events: Events) -> None:
        self.acknowledged = False
        self.settled = asyncio.Event()
        """Set once the server has acknowledged the stream, or the stream is closed."""
        self._events = events

    def on_notification(self, method: str, params: bytes) -> None:
        """Pass a notification on without our subscription id; consume the acknowledgement."""
        self.acknowledged = True
        self.settled.set()
        if method == "notifications/subscriptions/acknowledged":
            return
        meta = edit(member(params, "_meta"), {versions.SUBSCRIPTION_KEY: None})
        self._events.on_notification(
            method, edit(params, {"_meta": None if meta == b"{}" else meta})
        )

    async def on_request(self, method: str, params: bytes) -> Answer:
        """Respond as to a request outside of any call."""
        return await self._events.on_request(method, params)


class Subscriptions:
    """The streams of one connection. `pause` is awaited before a stream that ended is reopened."""

    def __init__(
        self,
        send: Callable[[Call], Awaitable[Answer]],
        events: Events,
        tasks: TaskScope,
        pause: Callable[[], Awaitable[None]],
    ) -> None:
        self._send = send
        self._events = events
        self._tasks = tasks
        self._pause = pause
        self._held: dict[str, asyncio.Future[None]] = {}
        self._lists: SubscriptionOwner | None = None

    def begin(self) -> None:
        """Open the stream that reports list changes."""
        self._lists = SubscriptionOwner(self._events)
        self._start(LISTS, self._lists)

    async def begun(self) -> None:
        """Return once the server reports list changes, or has refused to."""
        if self._lists is not None:
            await self._lists.settled.wait()

    async def take(self, call: Call) -> Answer:
        """Handle one of the methods in `TAKEN`."""
        uri = decode_any(member(call.params, "uri") or b'""')
        if call.method == "resources/subscribe":
            return await self._subscribe(uri)
        if call.method == "resources/unsubscribe" and (task := self._held.pop(uri, None)):
            task.cancel()
        return jsonrpc.success({})  # the log level is sent with each request

    async def _subscribe(self, uri: str) -> Answer:
        if uri not in self._held:
            listener = SubscriptionOwner(self._events)
            task = self._start({"resourceSubscriptions": [uri]}, listener)
            task.add_done_callback(lambda _: self._held.pop(uri, None))
            self._held[uri] = task
            await listener.settled.wait()
            if not listener.acknowledged:
                text = f"The server does not say when {uri} changes"
                return failure(jsonrpc.METHOD_NOT_FOUND, text)
        return jsonrpc.success({})

    def _start(self, wanted: object, listener: SubscriptionOwner) -> asyncio.Future[None]:
        task = self._tasks.start(self._hold, wanted, listener)
        task.add_done_callback(lambda _: listener.settled.set())
        return task

    async def _hold(self, wanted: object, listener: SubscriptionOwner) -> None:
        """Keep a stream open, reopening it when it ends; give up if the server does not acknowledge it."""
        params = versions.to_modern(encode({"notifications": wanted}))
        while True:
            listener.acknowledged = False
            call = Call("subscriptions/listen", params, listener, modern=True)
            with suppress(UpstreamDisconnected):
                await self._send(call)
            if not listener.acknowledged:
                return
            await self._pause()
