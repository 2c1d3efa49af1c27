"""What the parts of the gateway share, and how messages of servers reach the clients."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Collection, Container
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from local_mcp_gateway.formats import now_ms
from local_mcp_gateway.gateway.clients.origin_check import OriginCheck
from local_mcp_gateway.gateway.clients.sessions import Session, Sessions, severity_of
from local_mcp_gateway.gateway.clients.subscriptions import Subscribers, addresses_of
from local_mcp_gateway.gateway.protocol import jsonrpc
from local_mcp_gateway.gateway.protocol.hops import Hops
from local_mcp_gateway.gateway.protocol.jsonrpc import (
    Answer,
    Envelope,
    decode_target,
    edit,
    encode,
    failure,
)
from local_mcp_gateway.gateway.routing import server_info
from local_mcp_gateway.gateway.routing.call_log import SHOWN, error_text, payload, target_text
from local_mcp_gateway.gateway.routing.handlers import ClientRequest, takes_levels
from local_mcp_gateway.gateway.routing.registry import Registry
from local_mcp_gateway.gateway.routing.router import Router
from local_mcp_gateway.gateway.routing.server_info import initialize_result
from local_mcp_gateway.gateway.tasks import described
from local_mcp_gateway.gateway.timers import TimerWheel
from local_mcp_gateway.gateway.upstreams.connection import SILENT, Call, Events
from local_mcp_gateway.gateway.upstreams.server_requests import ProgressTokens
from local_mcp_gateway.store.model import CallRecord, CatalogKind

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from local_mcp_gateway.gateway.clients.subscriptions import SubscriptionStream
    from local_mcp_gateway.gateway.options import GatewayOptions
    from local_mcp_gateway.gateway.routing.call_log import CallLog
    from local_mcp_gateway.gateway.tasks import TaskScope
    from local_mcp_gateway.gateway.upstreams.upstream import Upstream
    from local_mcp_gateway.log import Emit

TICK_S: Final = 0.1
LIST_CHANGED: Final = {
    "notifications/tools/list_changed": (CatalogKind.TOOLS,),
    "notifications/prompts/list_changed": (CatalogKind.PROMPTS,),
    "notifications/resources/list_changed": (
        CatalogKind.RESOURCES,
        CatalogKind.RESOURCE_TEMPLATES,
    ),
}


class Broker:
    """The running gateway: everything that a request may need."""

    def __init__(
        self,
        options: GatewayOptions,
        calls: CallLog,
        emit: Emit,
        tasks: TaskScope,
        tracer: Tracer | None = None,
    ) -> None:
        self.options = options
        self.emit = emit
        self.calls = calls
        self.tasks = tasks
        self.doorkeeper = OriginCheck(options.allowed_hosts, options.allowed_origins)
        self.registry = Registry(options.list_timeout_s)
        self.hops = Hops(secrets.token_hex(8), self.registry.profiles_of)
        self.sessions = Sessions(self._left)
        self.listeners: set[SubscriptionStream] = set()
        self.alarms = TimerWheel(TICK_S)
        self._subscribers = Subscribers(self.sessions, self.listeners)
        self.router = _router(self.registry, self.sessions, self._subscribers, tasks, tracer)
        self.stopping = False
        self._tokens = ProgressTokens()

    # --- clients --------------------------------------------------------------------------------

    def hello(self, session: Session) -> Answer:
        """Answer `initialize`."""
        members = self.registry.members(session.profile)
        for upstream in members:
            upstream.want()
        return jsonrpc.success(initialize_result(session.version, members))

    def took(self, profile: str, session: Session | None, message: Envelope) -> None:
        """Take a client's notification, or its answer to something it was asked.

        What the gateway does not know goes to the server that it names, or else to all of the profile.
        """
        params = bytes(message.params)
        if not message.method:
            if session is not None:
                session.answered(message)
        elif message.method == "notifications/cancelled":
            if session is not None:
                with suppress(*jsonrpc.MALFORMED):  # it names no request
                    session.cancel(params)
        elif message.method == "notifications/progress":
            self.tasks.start(self._tokens.told, params)
        elif message.method != "notifications/initialized":
            for upstream, known in self.router.whom(profile, params):
                self.tasks.start(upstream.notify, message.method, known)

    def finished(self, request: ClientRequest, answer: Answer | None, began_ns: int) -> None:
        """Record one request that has ended, answered or not."""
        duration_us = (time.perf_counter_ns() - began_ns) // 1000
        status, error = "cancelled", None
        if answer is not None:
            status = "error" if answer.failed else "ok"
            error = error_text(answer) if answer.failed else None
        method, target = request.method[:SHOWN], target_text(request.target)
        shown = self.options.log_payloads
        self.calls.add(
            CallRecord(
                now_ms(),
                request.profile,
                request.server,
                method,
                target,
                status,
                error,
                duration_us,
                len(request.params),
                0 if answer is None else answer.relayed_bytes or len(answer.body),
                payload(request.params) if shown else None,
                payload(bytes(answer.body)) if shown and answer else None,
            )
        )
        self.emit(
            "call.finished",
            method=method,
            profile=request.profile,
            server=request.server,
            target=target,
            status=status,
            duration_ms=duration_us / 1000,
        )

    # --- servers --------------------------------------------------------------------------------

    def events_of(self, upstream: Upstream) -> Events:
        """Return whom the connections of this upstream tell."""
        return Events(
            notified=lambda method, params: self._notified(upstream, method, params),
            asked=lambda method, params: self._asked(upstream, method, params),
            wrote=lambda line: self._wrote(upstream, line),
            remembered=lambda: upstream.identity,
            tokens=self._tokens,
            learned=upstream.learned,
            way=lambda: self.hops.onward(upstream.name),
            failed=lambda error: self._failed(upstream, error),
        )

    def _failed(self, upstream: Upstream, error: Exception) -> None:
        self.emit("task.failed", server=upstream.name, message=described(error))

    def _wrote(self, upstream: Upstream, line: str) -> None:
        upstream.wrote.append(line)
        self.emit("upstream.logged", server=upstream.name, line=line)

    def connected(self, upstream: Upstream) -> None:
        """Tell a server that came back what clients still watch, and which log messages they want."""
        profiles = self.registry.profiles_of(upstream.name)
        for profile, uri in self._subscribers.wanted(profiles):
            self.tasks.start(self.router.resources.subscribe_again, upstream, profile, uri)
        level = self.sessions.least_level(profiles)
        if level is not None and takes_levels(upstream):
            call = Call("logging/setLevel", encode({"level": level}), SILENT)
            self.tasks.start(upstream.call, call)

    def watched(self, upstream: Upstream) -> bool:
        """Whether a client listens for changes of resources that may be this server's."""
        profiles = self.registry.profiles_of(upstream.name)
        return any(
            s.subscriptions and s.streams and s.profile in profiles for s in self.sessions
        ) or any(known.subscriptions and known.profile in profiles for known in self.listeners)

    def announce(self, profiles: Container[str], kinds: Container[CatalogKind]) -> None:
        """Tell the clients of these profiles that lists have changed."""
        for method, changed in LIST_CHANGED.items():
            if any(kind in kinds for kind in changed):
                self._broadcast(profiles, method, b"")

    def _notified(self, upstream: Upstream, method: str, params: bytes) -> None:
        if method in LIST_CHANGED:
            upstream.keeper.changed(frozenset(LIST_CHANGED[method]))
        elif method == "notifications/resources/updated":
            self._updated(upstream.name, params)
        elif method not in {"notifications/cancelled", "notifications/progress"}:
            self._broadcast(self.registry.profiles_of(upstream.name), method, params)

    def _broadcast(self, profiles: Container[str], method: str, params: bytes) -> None:
        message, severity = jsonrpc.notification(method, params), severity_of(method, params)
        for session in self.sessions:
            if session.profile not in profiles or not session.hears(severity):
                continue
            if method in LIST_CHANGED:
                session.tell(message)
            else:
                session.offer(message)
        for listener in tuple(self.listeners):
            if listener.profile in profiles:
                listener.offer(method, params, None)

    def _updated(self, server: str, params: bytes) -> None:
        """Tell who has subscribed to this resource, under the URI that each of them knows."""
        uri = decode_target(params).uri or ""
        profiles = self.registry.profiles_of(server)
        for known in addresses_of(server, uri):
            told = edit(params, {"uri": encode(known)}) if known != uri else params
            message = jsonrpc.notification("notifications/resources/updated", told)
            for session in self.sessions:
                if session.profile in profiles and known in session.subscriptions:
                    session.tell(message)
            for listener in tuple(self.listeners):
                if listener.profile in profiles:
                    listener.offer("notifications/resources/updated", told, known)

    async def _asked(self, upstream: Upstream, method: str, params: bytes) -> Answer:
        """Answer a request that a server makes outside of any call, if one client can be meant."""
        profiles = self.registry.profiles_of(upstream.name)
        able = [
            session
            for session in self.sessions
            if session.profile in profiles and session.streams and session.can(method)
        ]
        if len(able) == 1:
            return await able[0].ask(method, params)
        who = "Several clients could" if able else "No client is there to"
        return failure(jsonrpc.METHOD_NOT_FOUND, f"{who} answer {method}")

    async def subscribe(self, profile: str, uris: Collection[str]) -> None:
        """Subscribe at the servers for a stateless client."""
        for uri in uris:
            params = encode({"uri": uri})
            await self.router.handle(ClientRequest(profile, "resources/subscribe", params, SILENT))

    def _left(self, session: Session) -> None:
        """Give up what a session that has ended was subscribed to."""
        if not self.stopping:
            self.unsubscribe_soon(session.profile, session.subscriptions)

    def unsubscribe_soon(self, profile: str, uris: Collection[str]) -> None:
        """Give up subscriptions that no client holds any more."""
        for uri in uris:
            params = encode({"uri": uri})
            request = ClientRequest(profile, "resources/unsubscribe", params, SILENT)
            self.tasks.start(self.router.handle, request)

    # --- the end --------------------------------------------------------------------------------

    def end_removed(self) -> None:
        """End the sessions and streams of profiles that are no longer there."""
        for session in self.sessions:
            if session.profile not in self.registry.profiles:
                self.sessions.close(session)
        for listener in self.listeners:
            if listener.profile not in self.registry.profiles:
                listener.end()

    def close(self) -> None:
        """End streams and sessions."""
        self.stopping = True
        self.router.parking.close()
        for listener in self.listeners:
            listener.end()
        for session in self.sessions:
            self.sessions.close(session)

    def status(self) -> dict[str, Any]:
        """Return how each server is, and how many clients there are."""
        return {
            "servers": {
                name: server_info.state_of(upstream)
                for name, upstream in sorted(self.registry.upstreams.items())
            },
            "profiles": sorted(self.registry.profiles),
            "sessions": len(self.sessions),
            "tasks": len(asyncio.all_tasks()),
        }


def _router(
    registry: Registry,
    sessions: Sessions,
    subscribers: Subscribers,
    tasks: TaskScope,
    tracer: Tracer | None,
) -> Router:
    if tracer is None:
        return Router(registry, sessions, subscribers, tasks)
    from local_mcp_gateway.gateway.routing.tracing import TracedRouter

    return TracedRouter(registry, sessions, subscribers, tasks, tracer)
