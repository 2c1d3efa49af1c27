"""Deliver server notifications to clients, and pick the client for a server request.

Clients watch resources in their sessions, or in streams of their own (`subscriptions/listen`). A
server's notifications go to the clients whose profiles show it, under the names that they know. A
server that reconnects is told again what clients subscribe to.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Container, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import msgspec

from local_mcp_gateway.gateway.catalog import LISTS
from local_mcp_gateway.gateway.clients import (
    LEVELS,
    Session,
    Sessions,
    refusal,
    severity_of,
    shared,
)
from local_mcp_gateway.gateway.protocol import (
    Answer,
    Hops,
    decode_target,
    edit,
    encode,
    failure,
    jsonrpc,
)
from local_mcp_gateway.gateway.routing import mcp_tasks
from local_mcp_gateway.gateway.routing.handlers import ClientRequest, takes_levels
from local_mcp_gateway.gateway.routing.subscribers import (
    Subscribers,
    SubscriptionStream,
    addresses_of,
)
from local_mcp_gateway.gateway.tasks import TaskScope, described
from local_mcp_gateway.gateway.upstreams import (
    ANYBODY,
    NOBODY,
    ROOTS,
    SEVERAL,
    SILENT,
    Call,
    Caller,
    Events,
    ProgressTokens,
    Upstream,
    initialize_params,
)
from local_mcp_gateway.store import CatalogKind, Share

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.routing.registry import Registry
    from local_mcp_gateway.gateway.routing.router import Router
    from local_mcp_gateway.gateway.routing.sharing import Sharing
    from local_mcp_gateway.log import Emit

LIST_CHANGED: Final = {
    "notifications/tools/list_changed": (CatalogKind.TOOLS,),
    "notifications/prompts/list_changed": (CatalogKind.PROMPTS,),
    "notifications/resources/list_changed": (
        CatalogKind.RESOURCES,
        CatalogKind.RESOURCE_TEMPLATES,
    ),
}

UNKNOWN: Final = (
    "No client is known to be meant by {}. From now on each client of this server is served apart:"
    " a call that is made again can be answered"
)


class Broker:
    """Notifies the clients in `sessions` and `streams`. Its own tasks run in `tasks`."""

    def __init__(
        self,
        registry: Registry,
        sessions: Sessions,
        subscribers: Subscribers,
        router: Router,
        sharing: Sharing,
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
        self._sharing = sharing
        self._tokens = tokens
        self._hops = hops
        self._tasks = tasks
        self._emit = emit

    # --- messages from servers ------------------------------------------------------------------

    def events_of(self, upstream: Upstream) -> Events:
        """Return the callbacks for the connections of this upstream."""
        return Events(
            on_notification=lambda method, params, callers=(): self._on_notification(
                upstream, method, params, callers
            ),
            on_request=lambda method, params, callers=(), sure=False: self._on_request(
                upstream, method, params, callers, sure=sure
            ),
            initialize=lambda: initialize_params(self._capabilities(upstream)),
            stderr_line=lambda line: self._on_stderr_line(upstream, line),
            remembered=lambda: upstream.identity,
            tokens=self._tokens,
            identity_updated=upstream.identity_updated,
            session_renewed=lambda: self._renewed(upstream),
            via=lambda: self._hops.onward(upstream.name),
            failed=lambda error: self._failed(upstream, error),
            started=upstream.lifecycle.child_started,
        )

    def _capabilities(self, upstream: Upstream) -> object:
        """Return what to declare to a server: its client's capabilities, or those of all that share it.

        `MEDIATED` is declared for those that share it, to find out whether the server asks. Nobody's
        roots are right for clients that share a connection whatever happens.
        """
        capabilities: bytes | None = getattr(upstream.owner, "capabilities", None)
        if capabilities is not None:
            return msgspec.Raw(capabilities)
        profiles = self._registry.profiles_of(upstream.name)
        sharing = [each for each in self._sessions if each.profile in profiles and each.is_used]
        if sharing and upstream.lists_differ:
            return msgspec.Raw(sharing[0].capabilities)  # who differs from it does not share
        declared = shared(session.capabilities for session in sharing)
        if upstream.definition.share is Share.ALWAYS:
            return {name: value for name, value in declared.items() if name != "roots"}
        return declared

    def introduce(self, session: Session) -> None:
        """Tell servers of a new client: one that nobody has called yet is reconnected for that."""
        for upstream in self._registry.members(session.profile):
            upstream.introduce(self._capabilities(upstream))

    def _failed(self, upstream: Upstream, error: Exception) -> None:
        self._emit("task.failed", server=upstream.name, message=described(error))

    def _on_stderr_line(self, upstream: Upstream, line: str) -> None:
        upstream.lifecycle.stderr_lines.append(line)
        self._emit("upstream.logged", server=upstream.name, line=line)

    def connected(self, upstream: Upstream) -> None:
        """Send a reconnected server the subscriptions and the log level of its clients."""
        if upstream.owner is not None:
            self._connected_own(upstream)
            return
        profiles = self._registry.profiles_of(upstream.name)
        for profile, uri in self._subscribers.subscribed(profiles):
            self._tasks.start(self._router.resources.subscribe_again, upstream, profile, uri)
        level = self._sessions.least_level(profiles)
        if level is not None and takes_levels(upstream):
            call = Call("logging/setLevel", encode({"level": level}), SILENT)
            self._tasks.start(upstream.call, call)

    def _connected_own(self, upstream: Upstream) -> None:
        session = upstream.owner
        if not isinstance(session, Session):
            return
        for uri in session.subscriptions:
            again = self._router.resources.subscribe_again
            self._tasks.start(again, upstream, session.profile, uri)
        if session.level_was_set and takes_levels(upstream):
            call = Call("logging/setLevel", encode({"level": LEVELS[session.level]}), SILENT)
            self._tasks.start(upstream.call, call)

    def _renewed(self, upstream: Upstream) -> None:
        """Make up for what a server has forgotten; it may be another release that lists something else."""
        upstream.catalog_sync.changed(frozenset(LISTS))
        self.connected(upstream)

    def has_subscribers(self, upstream: Upstream) -> bool:
        """Return whether a client subscribes to this resource of the server."""
        if (owner := upstream.owner) is not None:
            watched = isinstance(owner, Session) and owner.subscriptions and owner.streams
            return bool(watched)
        profiles = self._registry.profiles_of(upstream.name)
        return any(
            s.subscriptions and s.streams and s.profile in profiles for s in self._sessions
        ) or any(known.subscriptions and known.profile in profiles for known in self.streams)

    def announce(
        self,
        profiles: Container[str],
        kinds: Container[CatalogKind],
        tokens: Container[str] | None = None,
    ) -> None:
        """Notify the clients of these profiles that lists have changed; with `tokens`, only those that show one."""
        for method, changed in LIST_CHANGED.items():
            if any(kind in kinds for kind in changed):
                self._broadcast(profiles, method, b"", tokens)

    def announce_to(self, client: object, kinds: Container[CatalogKind]) -> None:
        """Notify one client that lists of its own connection have changed."""
        if isinstance(client, Session):
            for method, changed in LIST_CHANGED.items():
                if any(kind in kinds for kind in changed):
                    client.enqueue_once(jsonrpc.notification(method, b""))

    def _on_notification(
        self, upstream: Upstream, method: str, params: bytes, callers: Sequence[Caller]
    ) -> None:
        if method in LIST_CHANGED:
            upstream.catalog_sync.changed(frozenset(LIST_CHANGED[method]))
        elif method == "notifications/resources/updated":
            self._updated(upstream, params)
        elif method not in {"notifications/cancelled", "notifications/progress"}:
            self._tell(upstream, method, params, callers)

    def _tell(
        self, upstream: Upstream, method: str, params: bytes, callers: Sequence[Caller]
    ) -> None:
        """Pass a notification to the client that it belongs to; to all, if the server speaks for itself."""
        client = upstream.owner
        if client is None or client is NOBODY:
            client = self._sharing.recipient(upstream, callers)
        if client is SEVERAL and upstream.definition.share is not Share.ALWAYS:
            self._sharing.separate(upstream, client)
            return
        if len(callers) == 1:
            callers[0].on_notification(method, params)
            return
        if method in mcp_tasks.NOTIFICATIONS:
            params = mcp_tasks.shown_tasks(upstream.name, params)
        if isinstance(client, Session):
            if client.accepts_level(severity_of(method, params)):
                client.enqueue(jsonrpc.notification(method, params))
        elif client is None or client is SEVERAL:
            self._broadcast(self._registry.profiles_of(upstream.name), method, params)

    def _broadcast(
        self,
        profiles: Container[str],
        method: str,
        params: bytes,
        tokens: Container[str] | None = None,
    ) -> None:
        def is_meant(client: Session | SubscriptionStream) -> bool:
            return client.profile in profiles and (tokens is None or client.token in tokens)

        message, severity = jsonrpc.notification(method, params), severity_of(method, params)
        for session in self._sessions:
            if not is_meant(session) or not session.accepts_level(severity):
                continue
            if method not in LIST_CHANGED:
                session.enqueue(message)
            elif session.greeted:
                session.enqueue_once(message)
        for stream in tuple(self.streams):
            if is_meant(stream):
                stream.enqueue(method, params, None)

    def _updated(self, upstream: Upstream, params: bytes) -> None:
        """Notify the subscribers of this resource, under the URI that each of them knows."""
        uri, server = decode_target(params).uri or "", upstream.name
        profiles = self._registry.profiles_of(server)
        own = self._registry.owned
        for known in addresses_of(server, uri):
            shown = edit(params, {"uri": encode(known)}) if known != uri else params
            message = jsonrpc.notification("notifications/resources/updated", shown)
            for session in self._sessions:
                served = session if server in own.get(session, {}) else None
                watches = session.profile in profiles and known in session.subscriptions
                if watches and served is upstream.owner:
                    session.enqueue_once(message)
            for stream in tuple(self.streams):
                if stream.profile in profiles and upstream.owner is None:
                    stream.enqueue("notifications/resources/updated", shown, known)

    async def _on_request(
        self,
        upstream: Upstream,
        method: str,
        params: bytes,
        callers: Sequence[Caller],
        *,
        sure: bool,
    ) -> Answer:
        """Ask the client that a server means, if its answer reaches nobody else."""
        client, share = upstream.owner, upstream.definition.share
        if client is None:
            client = callers[0].client if sure else self._sharing.recipient(upstream, callers)
            alone = sure and upstream.keeps is False
            if share is Share.ALWAYS and method == ROOTS:
                client = None
            elif share is not Share.ALWAYS and not alone:
                named = client if _can_be_asked(client, callers) else ANYBODY
                client = client if self._sharing.separate(upstream, named) else None
        if client is None or client in {NOBODY, SEVERAL, ANYBODY}:
            unknown = failure(jsonrpc.METHOD_NOT_FOUND, UNKNOWN.format(method))
            if len(callers) != 1:
                return unknown
            return refusal(callers[0].capabilities, method, params) or unknown
        asking = self._ask(upstream, client, method, params, callers)
        return await (upstream.gives_roots(asking) if method == ROOTS else asking)

    async def _ask(
        self,
        upstream: Upstream,
        client: object,
        method: str,
        params: bytes,
        callers: Sequence[Caller],
    ) -> Answer:
        """Ask a client in the stream of its newest call, or else of its session."""
        waiting = callers or [call.caller for call in upstream.in_flight if not call.identity]
        for caller in reversed(waiting):
            if caller.client is client:
                return await caller.on_request(method, params)
        if isinstance(client, Session) and client.streams:
            return await mcp_tasks.ask_about_task(upstream.name, client.ask, method, params)
        return failure(jsonrpc.METHOD_NOT_FOUND, f"No client is there to answer {method}")

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
        """Drop the subscriptions and the connections of a session that has ended."""
        self._sharing.leave(session)
        self._unsubscribe(session.profile, session.subscriptions)

    def _unsubscribe(self, profile: str, uris: Collection[str]) -> None:
        """Unsubscribe from what no client watches any more."""
        for uri in uris:
            self._tasks.start(self._router.handle, _about("resources/unsubscribe", profile, uri))

    # --- shutdown -------------------------------------------------------------------------------

    def end_removed(self, admits: Callable[[str, str], bool]) -> None:
        """End the sessions and streams of profiles that were removed, and of tokens that ended.

        `admits` tells whether the token of this id may still be used in the profile of that id.
        """

        def stays(client: Session | SubscriptionStream) -> bool:
            profile = self._registry.profiles.get(client.profile)
            return profile is not None and admits(client.token, profile.id)

        for session in self._sessions:
            if not stays(session):
                self._sessions.close(session)
        for stream in self.streams:
            if not stays(stream):
                stream.end()

    def close(self) -> None:
        """End all streams and sessions."""
        for stream in self.streams:
            stream.end()
        for session in self._sessions:
            self._sessions.close(session)


def _about(method: str, profile: str, uri: str) -> ClientRequest:
    return ClientRequest(profile, method, encode({"uri": uri}), SILENT)


def _can_be_asked(client: object, callers: Sequence[Caller]) -> bool:
    """Return whether a client has a session, or waits for questions in its call."""
    declared = [caller.capabilities for caller in callers if caller.client is client]
    return isinstance(client, Session) or any(each not in {b"", b"{}"} for each in declared)
