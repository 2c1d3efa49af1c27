"""Requests about a resource: where its URI may lead, and who goes on telling of its changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from local_mcp_gateway.gateway.catalog.union import Route, View, uri_prefix, with_uri
from local_mcp_gateway.gateway.protocol import envelope
from local_mcp_gateway.gateway.protocol.envelope import (
    INVALID_PARAMS,
    Answer,
    decode_target,
    edit,
    encode,
    failure,
)
from local_mcp_gateway.gateway.upstreams.call import Call
from local_mcp_gateway.gateway.upstreams.connection import SILENT
from local_mcp_gateway.store.model import CatalogKind

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from local_mcp_gateway.gateway.clients.subscribers import Subscribers
    from local_mcp_gateway.gateway.relay.registry import Registry
    from local_mcp_gateway.gateway.relay.request import Request
    from local_mcp_gateway.gateway.upstreams.upstream import Upstream


class Forward(Protocol):
    """Sends a request to the server of a route; an answer that is to be rewritten has to come `whole`."""

    def __call__(
        self, request: Request, route: Route, params: bytes, *, whole: bool = False
    ) -> Awaitable[Answer]:
        """Return the server's answer."""


class Resources:
    """Answers requests that name a URI. It holds nothing of its own."""

    def __init__(self, registry: Registry, subscribers: Subscribers, forward: Forward) -> None:
        self._registry = registry
        self._subscribers = subscribers
        self._forward = forward

    async def handle(self, request: Request) -> Answer:
        """Read a resource, or begin or end a subscription: the first server that has it answers."""
        uri = decode_target(request.params).uri if request.params else None
        if uri is None:
            return failure(INVALID_PARAMS, "Invalid params: a resource has a uri")
        request.target = uri
        routes = self.routes(await self._registry.settled_view(request.profile), uri)
        if not routes:
            return failure(envelope.RESOURCE_NOT_FOUND, f"Resource not found: {uri}", {"uri": uri})
        answer = Answer(b"{}")
        if request.session is not None and request.method == "resources/unsubscribe":
            request.session.subscriptions.discard(uri)
        for route in routes:
            if request.method == "resources/unsubscribe" and self._stays(route):
                return envelope.success({})
            changed = route.key != uri
            params = edit(request.params, {"uri": encode(route.key)}) if changed else request.params
            answer = await self._forward(request, route, params, whole=changed)
            if not answer.failed:
                self._note_subscription(request)
                return Answer(with_uri(answer.body, route.key, uri)) if changed else answer
        return answer

    def routes(self, view: View, uri: str) -> list[Route]:
        """Return where a URI may lead: listed, then templates, then whoever has resources."""
        listed = view.routes[CatalogKind.RESOURCES].get(uri)
        if listed is not None:
            return [listed]
        for server in view.servers:
            if uri.startswith(prefix := uri_prefix(server)):
                return [Route(server, uri.removeprefix(prefix))]
        matching = [route.server for template, route in view.templates if template.matches(uri)]
        if matching:
            return [Route(server, uri) for server in dict.fromkeys(matching)]
        return [
            Route(name, uri)
            for name in view.servers
            if (upstream := self._registry.upstreams.get(name)) is not None
            and upstream.identity is not None
            and "resources" in upstream.identity.capabilities
        ]

    async def subscribe_again(self, upstream: Upstream, profile: str, uri: str) -> None:
        """Subscribe at this server to a URI of this profile, if it leads there."""
        for route in self.routes(self._registry.view(profile), uri)[:1]:
            if route.server == upstream.name:
                params = encode({"uri": route.key})
                await upstream.call(Call("resources/subscribe", params, SILENT))

    def _stays(self, route: Route) -> bool:
        """Whether a server must go on telling of a resource, or is not there to be told otherwise."""
        upstream = self._registry.upstreams.get(route.server)
        profiles = self._registry.profiles_of(route.server)
        gone = upstream is None or not upstream.connected
        return gone or self._subscribers.watch(route.server, route.key, profiles)

    def _note_subscription(self, request: Request) -> None:
        if request.method == "resources/subscribe" and request.session and request.target:
            request.session.subscriptions.add(request.target)
