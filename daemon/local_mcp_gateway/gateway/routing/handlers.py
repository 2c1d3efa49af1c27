"""Handlers for resource requests and log levels, and the client request that all handlers take."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from local_mcp_gateway.gateway.catalog import ProfileView, Route, uri_prefix, with_shown_uris
from local_mcp_gateway.gateway.clients import LEVELS, Session, Sessions
from local_mcp_gateway.gateway.protocol import (
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    Answer,
    decode_target,
    edit,
    encode,
    failure,
    jsonrpc,
    member,
    success,
)
from local_mcp_gateway.gateway.upstreams import SILENT, Call, Caller, Silent, Upstream
from local_mcp_gateway.store import CatalogKind, ClientToken

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from local_mcp_gateway.gateway.routing.registry import Registry
    from local_mcp_gateway.gateway.routing.subscribers import Subscribers
    from local_mcp_gateway.gateway.tasks import TaskScope


class Forward(Protocol):
    """Sends a request to the server of a route; a response that will be rewritten must be `whole`."""

    def __call__(
        self, request: ClientRequest, route: Route, params: bytes, *, whole: bool = False
    ) -> Awaitable[Answer]:
        """Return the server's response."""


class Resources:
    """Handles requests that name a URI. Stateless."""

    def __init__(self, registry: Registry, subscribers: Subscribers, forward: Forward) -> None:
        self._registry = registry
        self._subscribers = subscribers
        self._forward = forward

    async def handle(self, request: ClientRequest) -> Answer:
        """Read, subscribe to or unsubscribe from a resource: the first server that has it responds."""
        uri = decode_target(request.params).uri if request.params else None
        if uri is None:
            return failure(INVALID_PARAMS, "Invalid params: a resource has a uri")
        request.target = uri
        view = await self._registry.settled_view(request.profile, request.session, request.token_id)
        routes = self.routes(view, uri, request.session)
        if not routes:
            return failure(jsonrpc.RESOURCE_NOT_FOUND, f"Resource not found: {uri}", {"uri": uri})
        answer = Answer(b"{}")
        if request.session is not None and request.method == "resources/unsubscribe":
            request.session.subscriptions.discard(uri)
        for route in routes:
            if request.method == "resources/unsubscribe" and self._stays(route, request.session):
                return jsonrpc.success({})
            changed = route.key != uri
            params = edit(request.params, {"uri": encode(route.key)}) if changed else request.params
            answer = await self._forward(request, route, params, whole=changed)
            if not answer.failed:
                self._note_subscription(request)
                shown = {route.key: uri}
                return Answer(with_shown_uris(answer.body, shown)) if changed else answer
        return answer

    def routes(self, view: ProfileView, uri: str, client: object = None) -> list[Route]:
        """Return the candidate routes of a URI: listed, then templates, then servers with resources."""
        listed = view.routes[CatalogKind.RESOURCES].get(uri) or view.referenced.get(uri)
        if listed is not None:
            return [listed]
        for server in view.servers:
            if uri.startswith(prefix := uri_prefix(server)):
                return [Route(server, uri.removeprefix(prefix))]
        matching = [route.server for template, route in view.templates if template.matches(uri)]
        if matching:
            return [Route(server, uri) for server in dict.fromkeys(matching)]
        if len(view.servers) == 1:
            return [Route(view.servers[0], uri)]
        return [
            Route(name, uri)
            for name in view.servers
            if (upstream := self._registry.at(name, client)) is not None
            and upstream.identity is not None
            and "resources" in upstream.identity.capabilities
        ]

    async def subscribe_again(self, upstream: Upstream, profile: str, uri: str) -> None:
        """Subscribe at this server to a URI of this profile, if the URI routes to it."""
        view = self._registry.view(profile, upstream.owner)
        for route in self.routes(view, uri, upstream.owner)[:1]:
            if route.server == upstream.name:
                params = encode({"uri": route.key})
                await upstream.call(Call("resources/subscribe", params, SILENT))

    def _stays(self, route: Route, client: object) -> bool:
        """Return whether a server must keep its subscription, or is not connected to drop it."""
        upstream = self._registry.at(route.server, client)
        profiles = self._registry.profiles_of(route.server)
        gone = upstream is None or not upstream.lifecycle.connection
        if upstream is not None and upstream.owner is not None:
            return gone
        return gone or self._subscribers.watch(route.server, route.key, profiles)

    def _note_subscription(self, request: ClientRequest) -> None:
        if request.method == "resources/subscribe" and request.session and request.target:
            request.session.subscriptions.add(request.target)


ANSWERED_S: Final = 1.0
"""How long a client waits for servers to accept a log level."""
METHOD: Final = "logging/setLevel"
_CLIENT: Final = Silent()
"""A handshake client: servers that speak both protocols get the level in the handshake one."""


def takes_levels(upstream: Upstream) -> bool:
    """Return whether this server sends log messages; one that is not connected does once it is."""
    identity = upstream.identity
    return identity is not None and "logging" in identity.capabilities


def _is_connected(upstream: Upstream) -> bool:
    return upstream.lifecycle.connection is not None


async def set_level(
    request: ClientRequest, registry: Registry, sessions: Sessions, tasks: TaskScope
) -> Answer:
    """Set a client's log level; an error only if every server that responded gave one."""
    level = member(request.params, "level").decode("utf-8", "replace").strip('"')
    if level not in LEVELS:
        return failure(INVALID_PARAMS, f"Invalid params: no log level {level!r}")
    if request.session is not None:
        request.session.level, request.session.level_was_set = LEVELS.index(level), True
    answers: list[Answer] = []

    async def tell(upstream: Upstream, params: bytes) -> None:
        answers.append(await upstream.call(Call(METHOD, params, _CLIENT)))

    members = registry.members(request.profile, request.session)
    takers = members if len(members) == 1 else [*filter(takes_levels, members)]
    if not takers and all(server.identity is not None for server in members):
        return failure(METHOD_NOT_FOUND, f"Method not found: {METHOD}")
    telling = []
    for upstream in filter(_is_connected, takers):
        least = None
        if upstream.owner is None:
            least = sessions.least_level(registry.profiles_of(upstream.name))
        params = request.params if least in {None, level} else encode({"level": least})
        telling.append(tasks.start(tell, upstream, params))
    if telling:
        await asyncio.wait(telling, timeout=ANSWERED_S)
    return answers[0] if answers and all(answer.failed for answer in answers) else success({})


class ClientRequest(msgspec.Struct, eq=False):
    """One request of a client. `server` and `target` are filled in for the call log."""

    profile: str
    method: str
    params: bytes
    caller: Caller
    session: Session | None = None
    modern: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    repeats: bool = False
    """Whether the client itself repeats arguments as `headers`; else the gateway does."""
    server: str | None = None
    target: str | None = None
    identity: bytes = b""
    """The id that the client gave it."""
    token: ClientToken | None = None
    """What the client showed, if that is still a token."""
    token_id: str = ""
    """The id of what it showed, "" for nothing."""
    client: str | None = None
    """What the client calls itself."""
