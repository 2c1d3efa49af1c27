"""Send each request where it belongs: lists are answered from the catalog, the rest is forwarded.

The table at the end is the list of methods that the gateway knows by name. A method that it does not
know goes to the server that its `name` or `uri` leads to, or to the only server of the profile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

from local_mcp_gateway.gateway.catalog.approval import HELD, refusal
from local_mcp_gateway.gateway.catalog.mirrored import fault, headers_for
from local_mcp_gateway.gateway.catalog.union import Route, View, uri_prefix, with_uri
from local_mcp_gateway.gateway.protocol import envelope, eras
from local_mcp_gateway.gateway.protocol.envelope import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    Answer,
    Target,
    decode_target,
    edit,
    encode,
    failure,
    member,
)
from local_mcp_gateway.gateway.relay import levels
from local_mcp_gateway.gateway.relay.hello import discover_result
from local_mcp_gateway.gateway.relay.rounds import Parking, ask_until_complete
from local_mcp_gateway.gateway.upstreams.call import Call, Caller
from local_mcp_gateway.gateway.upstreams.connection import SILENT
from local_mcp_gateway.store.model import CatalogKind, Prefix

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.clients.sessions import Sessions
    from local_mcp_gateway.gateway.clients.subscribers import Subscribers
    from local_mcp_gateway.gateway.relay.registry import Registry
    from local_mcp_gateway.gateway.relay.request import Request
    from local_mcp_gateway.gateway.upstreams.upstream import Upstream


class Router:
    """Answers requests. It holds nothing of its own."""

    def __init__(self, registry: Registry, sessions: Sessions, subscribers: Subscribers) -> None:
        self._registry = registry
        self._sessions = sessions
        self._subscribers = subscribers
        self.parking = Parking()

    async def handle(self, request: Request) -> Answer:
        """Answer one request, in the era in which it was made."""
        if request.modern and request.method in eras.REMOVED:
            return failure(METHOD_NOT_FOUND, f"Method not found: {request.method}")
        handler = METHODS.get(request.method, Router._other)
        try:
            answer = await handler(self, request)
        except envelope.MALFORMED as error:
            return failure(INVALID_PARAMS, f"Invalid params: {error}")
        return eras.modern_result(answer, request.method) if request.modern else answer

    async def _initialize(self, _: Request) -> Answer:
        """Refuse: what begins a session is answered before it comes here, and stands in no batch."""
        return failure(INVALID_REQUEST, "initialize stands alone, and begins a session")

    async def _ping(self, _: Request) -> Answer:
        return envelope.success({})

    async def _discover(self, request: Request) -> Answer:
        return envelope.success(discover_result(self._registry.members(request.profile)))

    async def _list(self, request: Request) -> Answer:
        view = await self._registry.settled_view(request.profile)
        return Answer(view.results[LIST_METHODS[request.method]])

    def _call_tool(self, request: Request) -> Awaitable[Answer]:
        return self._by_name(request, CatalogKind.TOOLS, "tool")

    def _get_prompt(self, request: Request) -> Awaitable[Answer]:
        return self._by_name(request, CatalogKind.PROMPTS, "prompt")

    async def _by_name(self, request: Request, kind: CatalogKind, what: str) -> Answer:
        name = decode_target(request.params).name if request.params else None
        if name is None:
            return failure(INVALID_PARAMS, f"Invalid params: a {what} has a name")
        request.target = name
        route = self._registry.view(request.profile).routes[kind].get(name)
        if route is None:
            view = await self._registry.settled_view(request.profile)
            route = view.routes[kind].get(name) or self._only_server(request, kind, name)
        if route is None:
            return failure(INVALID_PARAMS, f"Unknown {what}: {name}")
        if kind is CatalogKind.TOOLS and self._holds(route):
            return _refusal(request, route)
        params = request.params
        if route.key != name:
            params = edit(params, {"name": encode(route.key)})
        return await self._forward(request, route, params)

    def _holds(self, route: Route) -> bool:
        upstream = self._registry.upstreams.get(route.server)
        return upstream is not None and route.key in upstream.shelf.held

    def _only_server(self, request: Request, kind: CatalogKind, name: str) -> Route | None:
        """Let the only server of a profile judge a name that it has not listed (yet)."""
        profile = self._registry.definition(request.profile)
        members = self._registry.members(request.profile)
        if len(members) != 1 or profile.prefix is Prefix.ALWAYS:
            return None
        server = members[0]
        if kind is CatalogKind.TOOLS:
            for setting in profile.tools:
                if setting.server == server.name and name in {setting.name, setting.tool}:
                    shown = setting.enabled and name == (setting.name or setting.tool)
                    return Route(server.name, setting.tool) if shown else None
        listed = (server.shelf.lists or {}).get(kind, ())
        hidden = any(item.key == name for item in listed)
        return None if hidden else Route(server.name, name)

    async def _by_uri(self, request: Request) -> Answer:
        uri = decode_target(request.params).uri if request.params else None
        if uri is None:
            return failure(INVALID_PARAMS, "Invalid params: a resource has a uri")
        request.target = uri
        routes = self._uri_routes(await self._registry.settled_view(request.profile), uri)
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

    def _uri_routes(self, view: View, uri: str) -> list[Route]:
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
        for route in self._uri_routes(self._registry.view(profile), uri)[:1]:
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

    async def _complete(self, request: Request) -> Answer:
        ref = msgspec.json.decode(member(request.params, "ref") or b"{}", type=Target)
        view = await self._registry.settled_view(request.profile)
        route: Route | None = None
        if ref.name is not None:
            key, value = "name", ref.name
            route = view.routes[CatalogKind.PROMPTS].get(ref.name)
        elif ref.uri is not None:
            key, value = "uri", ref.uri
            templates = view.routes[CatalogKind.RESOURCE_TEMPLATES]
            route = templates.get(ref.uri) or next(iter(self._uri_routes(view, ref.uri)), None)
        if route is None:
            return failure(INVALID_PARAMS, "Invalid params: nothing known is to be completed")
        params = request.params
        if route.key != value:
            edited = edit(member(params, "ref"), {key: encode(route.key)})
            params = edit(params, {"ref": edited})
        return await self._forward(request, route, params)

    def _set_level(self, request: Request) -> Awaitable[Answer]:
        return levels.set_level(request, self._registry, self._sessions)

    async def _other(self, request: Request) -> Answer:
        """Pass on what the gateway does not know, with the name or URI that its server knows."""
        target = Target()
        with suppress(msgspec.DecodeError):  # what else it may hold is no business of ours
            target = decode_target(request.params or b"{}")
        view, name, uri = self._registry.view(request.profile), target.name, target.uri
        params, members = request.params, self._registry.members(request.profile)
        route = view.routes[CatalogKind.TOOLS].get(name or "")
        if route is not None and self._holds(route):
            return _refusal(request, route)
        route = route or view.routes[CatalogKind.PROMPTS].get(name or "")
        if route is not None:
            params = edit(params, {"name": encode(route.key)}) if route.key != name else params
        elif uri is not None and len(found := self._uri_routes(view, uri)) == 1:
            (route,) = found
            params = edit(params, {"uri": encode(route.key)}) if route.key != uri else params
        elif len(members) == 1:
            route = Route(members[0].name, "")
        if route is None:
            return failure(METHOD_NOT_FOUND, f"Method not found: {request.method}")
        return await self._forward(request, route, params)

    async def _forward(
        self, request: Request, route: Route, params: bytes, *, whole: bool = False
    ) -> Answer:
        upstream = self._registry.upstreams.get(route.server)
        if upstream is None:
            text = f"The server {route.server!r} was removed"
            return failure(envelope.UPSTREAM_UNAVAILABLE, text)
        request.server = route.server
        headers = request.headers
        if request.method == "tools/call":
            mirrored = self._registry.mirrored(upstream, route.key)
            if mirrored and not request.repeats:
                headers += headers_for(mirrored, params)
            elif mirrored and (wrong := fault(mirrored, dict(headers), params)) is not None:
                return failure(eras.HEADER_MISMATCH, wrong)

        def forward(caller: Caller, params: bytes) -> Awaitable[Answer]:
            key = route.key if request.method in eras.NAMED else None
            return upstream.call(
                Call(request.method, params, caller, request.modern, headers, key, whole)
            )

        caller = request.caller
        modern_server = upstream.identity is not None and upstream.identity.modern
        if request.modern == modern_server:
            return await forward(caller, params)
        if modern_server:
            return await ask_until_complete(params, caller.asked, lambda p: forward(caller, p))
        if self.parking.resumes(params):
            return await self.parking.resume(params, caller)
        return await self.parking.begin(caller, lambda parked: forward(parked, params))


def _refusal(request: Request, route: Route) -> Answer:
    request.server = route.server
    data = {"server": route.server, "tool": route.key}
    return failure(HELD, refusal(route.server, route.key), data)


LIST_METHODS: Final = {
    "tools/list": CatalogKind.TOOLS,
    "resources/list": CatalogKind.RESOURCES,
    "resources/templates/list": CatalogKind.RESOURCE_TEMPLATES,
    "prompts/list": CatalogKind.PROMPTS,
}
METHODS: Final[dict[str, Callable[[Router, Request], Awaitable[Answer]]]] = {
    "initialize": Router._initialize,  # noqa: SLF001
    "server/discover": Router._discover,  # noqa: SLF001
    "ping": Router._ping,  # noqa: SLF001  the table of this very class
    **dict.fromkeys(LIST_METHODS, Router._list),  # noqa: SLF001
    "tools/call": Router._call_tool,  # noqa: SLF001
    "prompts/get": Router._get_prompt,  # noqa: SLF001
    "resources/read": Router._by_uri,  # noqa: SLF001
    "resources/subscribe": Router._by_uri,  # noqa: SLF001
    "resources/unsubscribe": Router._by_uri,  # noqa: SLF001
    "completion/complete": Router._complete,  # noqa: SLF001
    "logging/setLevel": Router._set_level,  # noqa: SLF001
}
