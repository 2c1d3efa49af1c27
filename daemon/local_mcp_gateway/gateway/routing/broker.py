"""Deliver server notifications to clients, and pick the client for a server request.

A server's notifications go to the clients whose profiles show it, under the names that they know. A
server that reconnects is told again what clients subscribe to.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Container
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.gateway.clients.sessions import severity_of
from local_mcp_gateway.gateway.clients.subscriptions import addresses_of
from local_mcp_gateway.gateway.protocol import jsonrpc
from local_mcp_gateway.gateway.protocol.jsonrpc import (
    Answer,
    decode_target,
    edit,
    encode,
    failure,
)
from local_mcp_gateway.gateway.routing.handlers import ClientRequest, takes_levels
from local_mcp_gateway.gateway.tasks import described
from local_mcp_gateway.gateway.upstreams.connection import SILENT, Call, Events
from local_mcp_gateway.store.model import CatalogKind

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.clients.sessions import Session, Sessions
    from local_mcp_gateway.gateway.clients.subscriptions import Subscribers, SubscriptionStream
    from local_mcp_gateway.gateway.protocol.hops import Hops
    from local_mcp_gateway.gateway.routing.registry import Registry
    from local_mcp_gateway.gateway.routing.router import Router
    from local_mcp_gateway.gateway.tasks import TaskScope
    from local_mcp_gateway.gateway.upstreams.server_requests import ProgressTokens
    from local_mcp_gateway.gateway.upstreams.upstream import Upstream
    from local_mcp_gateway.log import Emit

LIST_CHANGED: Final = {
    "notifications/tools/list_changed": (CatalogKind.TOOLS,),
    "notifications/prompts/list_changed": (CatalogKind.PROMPTS,),
    "notifications/resources/list_changed": (
        CatalogKind.RESOURCES,
        CatalogKind.RESOURCE_TEMPLATES,
    ),
}


class Broker:
    """Notifies the clients in `sessions` and `streams`. Its own tasks run in `tasks`."""

    def __init__(
        self,
        registry: Registry,
        sessions: Sessions,
        subscribers: Subscribers,
        router: Router,
        tokens: ProgressTokens,
        hops: Hops,
        tasks: TaskScope,
        emit: Emit,
    ) -> None:
        self.streams: set[SubscriptionStream] = subscribers.streams
        self._registry = registry
        self._sessions = sessions
        self._subscribers = subscribers
        self._router = router
        self._tokens = tokens
        self._hops = hops
        self._tasks = tasks
        self._emit = emit

    # --- messages from servers ------------------------------------------------------------------

    def events_of(self, upstream: Upstream) -> Events:
        """Return the callbacks for the connections of this upstream."""
        return Events(
            on_notification=lambda method, params: self._on_notification(upstream, method, params),
            on_request=lambda method, params: self._on_request(upstream, method, params),
            stderr_line=lambda line: self._on_stderr_line(upstream, line),
            remembered=lambda: upstream.identity,
            tokens=self._tokens,
            identity_updated=upstream.identity_updated,
            way=lambda: self._hops.onward(upstream.name),
            failed=lambda error: self._failed(upstream, error),
        )

    def _failed(self, upstream: Upstream, error: Exception) -> None:
        self._emit("task.failed", server=upstream.name, message=described(error))

    def _on_stderr_line(self, upstream: Upstream, line: str) -> None:
        upstream.stderr_lines.append(line)
        self._emit("upstream.logged", server=upstream.name, line=line)

    def connected(self, upstream: Upstream) -> None:
        """Send a reconnected server the subscriptions and the log level of its clients."""
        profiles = self._registry.profiles_of(upstream.name)
        for profile, uri in self._subscribers.subscribed(profiles):
            self._tasks.start(self._router.resources.subscribe_again, upstream, profile, uri)
        level = self._sessions.least_level(profiles)
        if level is not None and takes_levels(upstream):
            call = Call("logging/setLevel", encode({"level": level}), SILENT)
            self._tasks.start(upstream.call, call)

    def has_subscribers(self, upstream: Upstream) -> bool:
        """Return whether a client subscribes to this resource of the server."""
        profiles = self._registry.profiles_of(upstream.name)
        return any(
            s.subscriptions and s.streams and s.profile in profiles for s in self._sessions
        ) or any(known.subscriptions and known.profile in profiles for known in self.streams)

    def announce(self, profiles: Container[str], kinds: Container[CatalogKind]) -> None:
        """Notify the clients of these profiles that lists have changed."""
        for method, changed in LIST_CHANGED.items():
            if any(kind in kinds for kind in changed):
                self._broadcast(profiles, method, b"")

    def _on_notification(self, upstream: Upstream, method: str, params: bytes) -> None:
        if method in LIST_CHANGED:
            upstream.catalog_sync.changed(frozenset(LIST_CHANGED[method]))
        elif method == "notifications/resources/updated":
            self._updated(upstream.name, params)
        elif method not in {"notifications/cancelled", "notifications/progress"}:
            self._broadcast(self._registry.profiles_of(upstream.name), method, params)

    def _broadcast(self, profiles: Container[str], method: str, params: bytes) -> None:
        message, severity = jsonrpc.notification(method, params), severity_of(method, params)
        for session in self._sessions:
            if session.profile not in profiles or not session.accepts_level(severity):
                continue
            if method in LIST_CHANGED:
                session.enqueue_once(message)
            else:
                session.enqueue(message)
        for stream in tuple(self.streams):
            if stream.profile in profiles:
                stream.enqueue(method, params, None)

    def _updated(self, server: str, params: bytes) -> None:
        """Notify the subscribers of this resource, under the URI that each of them knows."""
        uri = decode_target(params).uri or ""
        profiles = self._registry.profiles_of(server)
        for known in addresses_of(server, uri):
            told = edit(params, {"uri": encode(known)}) if known != uri else params
            message = jsonrpc.notification("notifications/resources/updated", told)
            for session in self._sessions:
                if session.profile in profiles and known in session.subscriptions:
                    session.enqueue_once(message)
            for stream in tuple(self.streams):
                if stream.profile in profiles:
                    stream.enqueue("notifications/resources/updated", told, known)

    async def _on_request(self, upstream: Upstream, method: str, params: bytes) -> Answer:
        """Handle a server request outside of any call: forward it if exactly one client qualifies."""
        profiles = self._registry.profiles_of(upstream.name)
        able = [
            session
            for session in self._sessions
            if session.profile in profiles and session.streams and session.can(method)
        ]
        if len(able) == 1:
            return await able[0].ask(method, params)
        who = "Several clients could" if able else "No client is there to"
        return failure(jsonrpc.METHOD_NOT_FOUND, f"{who} answer {method}")

    # --- client subscriptions -------------------------------------------------------------------

    @asynccontextmanager
    async def subscribing(self, stream: SubscriptionStream) -> AsyncIterator[None]:
        """Register a stateless client's subscriptions for as long as its stream is open."""
        self.streams.add(stream)
        try:
            for uri in stream.subscriptions:
                await self._router.handle(_about("resources/subscribe", stream.profile, uri))
            yield
        finally:
            self.streams.discard(stream)
            self._unsubscribe(stream.profile, stream.subscriptions)

    def on_disconnect(self, session: Session) -> None:
        """Drop the subscriptions of a session that has ended."""
        self._unsubscribe(session.profile, session.subscriptions)

    def _unsubscribe(self, profile: str, uris: Collection[str]) -> None:
        """Unsubscribe from what no client watches any more."""
        for uri in uris:
            self._tasks.start(self._router.handle, _about("resources/unsubscribe", profile, uri))

    # --- shutdown -------------------------------------------------------------------------------

    def end_removed(self) -> None:
        """End the sessions and streams of profiles that were removed."""
        for session in self._sessions:
            if session.profile not in self._registry.profiles:
                self._sessions.close(session)
        for stream in self.streams:
            if stream.profile not in self._registry.profiles:
                stream.end()

    def close(self) -> None:
        """End all streams and sessions."""
        for stream in self.streams:
            stream.end()
        for session in self._sessions:
            self._sessions.close(session)


def _about(method: str, profile: str, uri: str) -> ClientRequest:
    return ClientRequest(profile, method, encode({"uri": uri}), SILENT)
