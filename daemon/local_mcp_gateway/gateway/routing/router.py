"""Route client requests: answer lists from the catalog, forward the rest to a server.

`Router.METHODS` are the known methods. A request with an unknown method goes to the server that its
`name` or `uri` routes to, or to the only server of the profile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, ClassVar, Final

import msgspec

from local_mcp_gateway.gateway.catalog import (
    HELD,
    METHODS,
    Reader,
    Route,
    held_message,
    repeated,
    with_shown_uris,
)
from local_mcp_gateway.gateway.protocol import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    Answer,
    Target,
    decode_members,
    decode_target,
    edit,
    encode,
    failure,
    jsonrpc,
    member,
    versions,
)
from local_mcp_gateway.gateway.routing import handlers, mcp_tasks
from local_mcp_gateway.gateway.routing.handlers import ClientRequest, Resources
from local_mcp_gateway.gateway.routing.input_required import PendingCalls, ask_until_complete
from local_mcp_gateway.gateway.routing.mcp_tasks import TaskCaller, TaskRequests, shown_tasks
from local_mcp_gateway.gateway.routing.server_info import declares, discover_result
from local_mcp_gateway.gateway.upstreams import ANYBODY, Call, Caller, Upstream
from local_mcp_gateway.store import CatalogKind, Prefix

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.clients import Session, Sessions
    from local_mcp_gateway.gateway.routing.registry import Registry
    from local_mcp_gateway.gateway.routing.sharing import Sharing
    from local_mcp_gateway.gateway.routing.subscribers import Subscribers
    from local_mcp_gateway.gateway.tasks import TaskScope

LIST_METHODS: Final = {method: kind for kind, (_, method) in METHODS.items()}
TASK_AWARE: Final = frozenset({"tools/call", *mcp_tasks.METHODS})
"""Methods whose results name tasks."""


class Router:
    """Routes and handles requests. Stateless."""

    def __init__(
        self,
        registry: Registry,
        sessions: Sessions,
        subscribers: Subscribers,
        sharing: Sharing,
        tasks: TaskScope,
    ) -> None:
        self._registry = registry
        self._sharing = sharing
        self._sessions = sessions
        self._tasks = tasks
        self.resources = Resources(registry, subscribers, self._forward)
        self.pending_calls = PendingCalls(tasks)
        self._task_requests = TaskRequests(registry, self._forward)

    def connect_own(self, session: Session) -> None:
        """Give a new client its own connections where it needs them at once."""
        self._sharing.connect_own(session)

    async def handle(self, request: ClientRequest) -> Answer:
        """Handle one request, in the protocol in which it was made."""
        if request.modern and request.method in versions.REMOVED:
            return failure(METHOD_NOT_FOUND, f"Method not found: {request.method}")
        handler = self.METHODS.get(request.method, Router._other)
        try:
            answer = await handler(self, request)
        except jsonrpc.MALFORMED as error:
            return failure(INVALID_PARAMS, f"Invalid params: {error}")
        return versions.modern_result(answer, request.method) if request.modern else answer

    async def _initialize(self, _: ClientRequest) -> Answer:
        """Refuse: `initialize` is handled before it gets here, and is not allowed in a batch."""
        return failure(
            INVALID_REQUEST, "initialize begins a session, and cannot be part of a batch"
        )

    async def _ping(self, _: ClientRequest) -> Answer:
        return jsonrpc.success({})

    async def _discover(self, request: ClientRequest) -> Answer:
        return jsonrpc.success(discover_result(await self._registry.introduced(request.profile)))

    async def _list(self, request: ClientRequest) -> Answer:
        view, kind = (
            await self._registry.settled_view(request.profile, request.session, request.token_id),
            LIST_METHODS[request.method],
        )
        result = view.result(kind, reader_of(request))
        if not request.modern:
            return Answer(result)
        ttl_ms = self._registry.ttl_ms(request.profile, request.session, kind)
        return Answer(b"{%s,%s" % (versions.modern_list(ttl_ms), result[1:]))

    def _call_tool(self, request: ClientRequest) -> Awaitable[Answer]:
        return self._by_name(request, CatalogKind.TOOLS, "tool")

    def _get_prompt(self, request: ClientRequest) -> Awaitable[Answer]:
        return self._by_name(request, CatalogKind.PROMPTS, "prompt")

    async def _by_name(self, request: ClientRequest, kind: CatalogKind, what: str) -> Answer:
        name = decode_target(request.params).name if request.params else None
        if name is None:
            return failure(INVALID_PARAMS, f"Invalid params: a {what} has a name")
        request.target = name
        session, token = request.session, request.token_id
        view = self._registry.view(request.profile, session, token)
        if (route := view.routes[kind].get(name)) is not None:
            upstream = self._registry.at(route.server, session)
            # What a server lists is judged already; `_holds` also judges what it does not list.
            held = upstream is not None and route.key in upstream.catalog.held
        else:
            await self._registry.settled_view(request.profile, session, token)
            route = self._find(request, kind, name)
            held = route is not None and self._holds(kind, route, session)
        if route is None:
            return failure(INVALID_PARAMS, f"Unknown {what}: {name}")
        if held and kind is CatalogKind.TOOLS:
            return _refusal(request, route)
        params = request.params
        if route.key != name:
            params = edit(params, {"name": encode(route.key)})
        return await self._forward(request, route, params)

    def _find(self, request: ClientRequest, kind: CatalogKind, name: str) -> Route | None:
        """Return where a name leads for a client; None if its profile does not show that.

        Every message that names a tool or a prompt asks here, so none reaches what others do not.
        """
        view = self._registry.view(request.profile, request.session, request.token_id)
        found = view.routes[kind].get(name) or view.own_names[kind].get(name)
        if found is not None:
            return found
        alone = self._only_server(request.profile, request.session, kind, name)
        hides = view.visibility if kind is CatalogKind.TOOLS else None
        # What its server does not list, it says nothing of.
        return alone if alone and (hides is None or hides.shows(alone, name, None)) else None

    def _holds(self, kind: CatalogKind | None, route: Route, session: Session | None) -> bool:
        """Return whether this is a tool that is held until a person approves it."""
        if kind is not CatalogKind.TOOLS:
            return False
        upstream = self._registry.at(route.server, session)
        return upstream is not None and upstream.catalog.holds(route.key)

    def _only_server(
        self, profile: str, session: Session | None, kind: CatalogKind, name: str
    ) -> Route | None:
        """Return the only server of a profile for a name that it does not list (yet)."""
        definition = self._registry.definition(profile)
        members = self._registry.members(profile, session)
        if len(members) != 1 or definition.prefix is Prefix.ALWAYS:
            return None
        server = members[0]
        if kind is CatalogKind.TOOLS:
            for setting in definition.tools:
                if setting.server == server.name and name in {setting.name, setting.tool}:
                    shown = setting.enabled and name == (setting.name or setting.tool)
                    return Route(server.name, setting.tool) if shown else None
        listed = (server.catalog.lists or {}).get(kind, ())
        hidden = any(item.key == name for item in listed)
        return None if hidden else Route(server.name, name)

    def _by_uri(self, request: ClientRequest) -> Awaitable[Answer]:
        return self.resources.handle(request)

    async def _complete(self, request: ClientRequest) -> Answer:
        ref = msgspec.json.decode(member(request.params, "ref") or b"{}", type=Target)
        token = request.token_id
        view = await self._registry.settled_view(request.profile, request.session, token)
        route: Route | None = None
        key = value = ""
        if ref.name is not None:
            key, value = "name", ref.name
            route = self._find(request, CatalogKind.PROMPTS, ref.name)
        elif ref.uri is not None:
            key, value = "uri", ref.uri
            templates = view.routes[CatalogKind.RESOURCE_TEMPLATES]
            route = templates.get(ref.uri) or next(
                iter(self.resources.routes(view, ref.uri, request.session)), None
            )
        if route is None and value and len(view.servers) == 1 and view.visibility is None:
            route = Route(view.servers[0], value)
        if route is None:
            return failure(INVALID_PARAMS, "Invalid params: nothing known is to be completed")
        params = request.params
        if route.key != value:
            edited = edit(member(params, "ref"), {key: encode(route.key)})
            params = edit(params, {"ref": edited})
        return await self._forward(request, route, params)

    def _about_task(self, request: ClientRequest) -> Awaitable[Answer]:
        return self._task_requests.handle(request)

    def _set_level(self, request: ClientRequest) -> Awaitable[Answer]:
        return handlers.set_level(request, self._registry, self._sessions, self._tasks)

    async def _other(self, request: ClientRequest) -> Answer:
        """Forward an unknown method, with the name or URI that its server knows."""
        session, token = request.session, request.token_id
        possible = self._possible_routes(
            request.profile, session, token, request.method, request.params
        )
        if len(possible) != 1:
            return failure(METHOD_NOT_FOUND, f"Method not found: {request.method}")
        ((kind, route, params),) = possible
        if self._holds(kind, route, request.session):
            return _refusal(request, route)
        return await self._forward(request, route, params)

    def targets_of(
        self, profile: str, session: Session | None, token: str, method: str, params: bytes
    ) -> list[tuple[Upstream, bytes]]:
        """Return the servers that a notification is for, each with the params as it knows them."""
        try:
            possible = self._possible_routes(profile, session, token, method, params)
        except jsonrpc.MALFORMED:
            return []
        return [
            (upstream, known)
            for kind, route, known in possible
            if (upstream := self._registry.at(route.server, session)) is not None
            and not self._holds(kind, route, session)
            and self._sharing.may_notify(upstream, session)
        ]

    def _possible_routes(
        self, profile: str, session: Session | None, token: str, method: str, params: bytes
    ) -> list[tuple[CatalogKind | None, Route, bytes]]:
        """Return the possible routes of a message with an unknown method, with rewritten params.

        Its `name`, or else its `uri`, decides. Where neither has a route, the servers qualify that
        declare the capability or extension that the method is named after, or else every server of the
        profile; none, if it names what does not exist for the client, or if some tool does not: nobody
        knows what else the method may reach. Raises MALFORMED.
        """
        members = decode_members(params) if params[:1] == b"{" else {}
        name, uri = _text(members.get("name")), _text(members.get("uri"))
        view = self._registry.view(profile, session, token)
        for kind in (CatalogKind.TOOLS, CatalogKind.PROMPTS):
            route = view.routes[kind].get(name or "") or view.own_names[kind].get(name or "")
            if route is not None:
                known = edit(params, {"name": encode(route.key)}) if route.key != name else params
                return [(kind, route, known)]
        if name is not None and self._hides(profile, session, name):
            return []
        if uri is not None and len(found := self.resources.routes(view, uri, session)) == 1:
            known = edit(params, {"uri": encode(found[0].key)}) if found[0].key != uri else params
            return [(CatalogKind.RESOURCES, found[0], known)]
        if view.visibility is not None:
            return []
        servers = self._registry.members(profile, session)
        those = [server for server in servers if declares(server.identity, method)]
        return [(None, Route(server.name, ""), params) for server in those or servers]

    def _hides(self, profile: str, session: Session | None, name: str) -> bool:
        """Return whether a server of this profile has something under this name that the profile hides."""
        settings = self._registry.definition(profile).tools
        return any(name in {setting.name, setting.tool} for setting in settings) or any(
            item.key == name
            for server in self._registry.members(profile, session)
            for kind in (CatalogKind.TOOLS, CatalogKind.PROMPTS)
            for item in (server.catalog.lists or {}).get(kind, ())
        )

    async def _forward(
        self, request: ClientRequest, route: Route, params: bytes, *, whole: bool = False
    ) -> Answer:
        upstream = self._registry.upstreams.get(route.server)
        if upstream is None:
            text = f"The server {route.server!r} was removed"
            return failure(jsonrpc.UPSTREAM_UNAVAILABLE, text)
        request.server = route.server
        headers = request.headers
        if request.method == "tools/call":
            listing = self._registry.at(route.server, request.session) or upstream
            if header_params := self._registry.header_params(listing, route.key):
                sent = dict(request.headers) if request.repeats else None
                needed = repeated(header_params, sent, params)
                if isinstance(needed, Answer):
                    return needed
                headers += needed

        # No coroutine, and so is `_translated`: each further one costs every call.
        def forward(caller: Caller, params: bytes) -> Awaitable[Answer]:
            key = route.key if request.method in versions.NAMED else None
            call = Call(request.method, params, caller, request.modern, headers, key, whole)
            if caller.client is None:  # the gateway's own
                return upstream.call(call)
            client = request.session or ANYBODY
            apart = caller is not request.caller or client in self._registry.owned
            if not apart and upstream.serves(client):
                upstream.use(client)
                return upstream.call(call)
            return self._sharing.call(upstream, request, call)

        seen = self._registry.view(request.profile, request.session, request.token_id)
        renamed = seen.renamed
        uris = renamed.get(route.server) if renamed else None
        identity = upstream.identity
        tasks = request.method in TASK_AWARE and identity is not None and identity.makes_tasks
        if uris is None and not tasks:
            return await self._translated(request, upstream, forward, request.caller, params)
        whole = whole or uris is not None
        caller = TaskCaller(request.caller, route.server) if tasks else request.caller
        answer = await self._translated(request, upstream, forward, caller, params)
        if answer.failed or answer.relayed_bytes:
            return answer
        body = shown_tasks(route.server, answer.body) if tasks else answer.body
        return Answer(body if uris is None else with_shown_uris(body, uris))

    def _translated(
        self,
        request: ClientRequest,
        upstream: Upstream,
        forward: Callable[[Caller, bytes], Awaitable[Answer]],
        caller: Caller,
        params: bytes,
    ) -> Awaitable[Answer]:
        """Make a call in the protocol of its server, for a client that may speak the other one."""
        modern_server = upstream.identity is not None and upstream.identity.modern
        if request.modern == modern_server:
            return forward(caller, params)
        if modern_server:
            return ask_until_complete(params, caller.on_request, lambda p: forward(caller, p))
        if self.pending_calls.resumes(params):
            return self.pending_calls.resume(params, caller)
        return self.pending_calls.begin(caller, lambda pending_call: forward(pending_call, params))

    METHODS: ClassVar[dict[str, Callable[[Router, ClientRequest], Awaitable[Answer]]]] = {
        "initialize": _initialize,
        "server/discover": _discover,
        "ping": _ping,
        **dict.fromkeys(LIST_METHODS, _list),
        "tools/call": _call_tool,
        "prompts/get": _get_prompt,
        "resources/read": _by_uri,
        "resources/subscribe": _by_uri,
        "resources/unsubscribe": _by_uri,
        "completion/complete": _complete,
        "logging/setLevel": _set_level,
        **dict.fromkeys(mcp_tasks.METHODS, _about_task),
    }
    """The methods that the gateway knows by name."""


def reader_of(request: ClientRequest) -> Reader:
    """Return what the client that made this request can read."""
    if request.modern:
        extensions = member(request.caller.capabilities, "extensions")
        return Reader(modern=True, tasks=bool(member(extensions, versions.TASKS)))
    session = request.session
    return Reader(tasks=session is not None and session.version >= versions.TASKS_SINCE)


def _text(raw: msgspec.Raw | None) -> str | None:
    """Return a member's text, if it is a string."""
    value = None if raw is None or bytes(raw)[:1] != b'"' else jsonrpc.decode_any(raw)
    return value if isinstance(value, str) else None


def _refusal(request: ClientRequest, route: Route) -> Answer:
    request.server = route.server
    data = {"server": route.server, "tool": route.key}
    return failure(HELD, held_message(route.server, route.key), data)
