"""Run all upstream servers and profiles that the database defines, and reload them when they change."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from local_mcp_gateway.errors import GatewayError
from local_mcp_gateway.gateway.catalog import LISTS
from local_mcp_gateway.gateway.catalog_cache import Approvals, CatalogCache
from local_mcp_gateway.gateway.clients import Admission, Limiter, Session, Sessions
from local_mcp_gateway.gateway.http import Application, GatewayApp
from local_mcp_gateway.gateway.protocol import Hops
from local_mcp_gateway.gateway.routing import (
    Broker,
    CallLog,
    Dispatcher,
    Registry,
    Router,
    Sharing,
    Subscribers,
    state_of,
)
from local_mcp_gateway.gateway.tasks import TaskScope, described
from local_mcp_gateway.gateway.upstreams import (
    Connection,
    Events,
    Fetched,
    Hooks,
    Identity,
    OrphanReaper,
    ProgressTokens,
    Unseal,
    Upstream,
    UpstreamDisconnected,
    as_reason,
    fetch_lists,
    open_connection,
    same_definition,
    undeclared,
    with_values,
)
from local_mcp_gateway.log import Emit, ignore
from local_mcp_gateway.store import (
    CatalogKind,
    ServerDefinition,
    ServerKind,
    list_tokens,
    load_definitions,
    opened_server,
)

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from local_mcp_gateway.database import ConnectionPool
    from local_mcp_gateway.gateway.oauth import SignInStore, TokenSource
    from local_mcp_gateway.gateway.options import GatewayOptions
    from local_mcp_gateway.store import ClientToken


def _router(
    registry: Registry,
    sessions: Sessions,
    subscribers: Subscribers,
    sharing: Sharing,
    tasks: TaskScope,
    tracer: Tracer | None,
) -> Router:
    if tracer is None:
        return Router(registry, sessions, subscribers, sharing, tasks)
    from local_mcp_gateway.gateway.tracing import TracedRouter

    return TracedRouter(registry, sessions, subscribers, sharing, tasks, tracer)


class Gateway:
    """Owns every upstream server. Create one with `async with Gateway.open(…)`."""

    app: Application

    def __init__(
        self,
        database: ConnectionPool,
        options: GatewayOptions,
        emit: Emit,
        tracer: Tracer | None,
        unseal: Unseal,
    ) -> None:
        self._database = database
        self._options = options = replace(options)
        self._emit = emit
        self._unseal = unseal
        self._upstream_tasks = TaskScope(self._failed)
        self._tasks = TaskScope(self._failed)
        self._refreshes = TaskScope(self._failed)
        """Tasks that use the upstreams, and so end before them."""
        self.calls = CallLog(database, emit, options)
        self._cache = CatalogCache(database, emit, self._tasks)
        self.registry = Registry(options, self._cache.keep_names)
        self.sessions = Sessions(self._on_disconnect)
        self._admission = Admission(options, self._end_removed)
        subscribers, tokens = Subscribers(self.sessions), ProgressTokens()
        self._sharing = Sharing(self.registry, self._upstream, self._upstream_tasks)
        router = _router(
            self.registry, self.sessions, subscribers, self._sharing, self._tasks, tracer
        )
        way = Hops(secrets.token_hex(8), self.registry.profiles_of)
        self.broker = Broker(
            self.registry,
            self.sessions,
            subscribers,
            router,
            self._sharing,
            tokens,
            way,
            self._tasks,
            emit,
        )
        self._limiter = Limiter()
        dispatcher = Dispatcher(
            self.registry,
            router,
            self.calls,
            self._limiter,
            tokens,
            self._tasks,
            self.broker.introduce,
        )
        self.problem: GatewayError | None = None
        """Why this gateway is not ready although it responds; set by its owner."""
        self.replica: Callable[[], dict[str, Any] | None] = lambda: None
        """Returns the state of the database's replica, if there is one; set by its owner."""
        self.copies: Callable[[], dict[str, Any] | None] = lambda: None
        """Returns which backups are off the machine, if that is wanted; set by its owner."""
        self._hooks = Hooks(
            self._listed, self.broker.connected, self.broker.events_of, self.broker.has_subscribers
        )
        self._reaper = OrphanReaper()
        self._sign_ins: SignInStore | None = None
        self._sources: dict[str, TokenSource] = {}
        """The tokens of each server that a person has signed in to, by its id."""
        self._reloading = asyncio.Lock()
        self.app = GatewayApp(
            options,
            self.registry,
            self.sessions,
            dispatcher,
            self.broker,
            self.calls,
            self._admission,
            way,
            self.status,
            emit,
        )
        if tracer is not None:
            from local_mcp_gateway.gateway.tracing import traced

            self.app = traced(self.app)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        database: ConnectionPool,
        options: GatewayOptions,
        emit: Emit = ignore,
        tracer: Tracer | None = None,
        unseal: Unseal = opened_server,
        sign_ins: SignInStore | None = None,
    ) -> AsyncIterator[Gateway]:
        """Read the definitions and start every upstream; connect to none yet.

        `unseal` returns a server with its values decrypted; it is called in a thread, before a
        connection. `sign_ins` are the tokens of servers that a person has signed in to. On exit every
        task, session and child process tree has ended, and no refresh of a token is under way.
        """
        gateway = cls(database, options, emit, tracer, unseal)
        gateway._sign_ins = sign_ins
        gateway.registry.kept = await gateway._cache.names()
        async with AsyncExitStack() as stack:
            stack.push_async_callback(gateway.calls.flush)
            await stack.enter_async_context(gateway._refreshes)
            stack.push_async_callback(gateway._close)
            await stack.enter_async_context(gateway._upstream_tasks)
            await stack.enter_async_context(gateway._tasks)
            stack.callback(gateway.broker.close)
            stack.callback(gateway._admission.close)
            gateway._tasks.start(gateway.calls.run)
            await gateway.reload()
            yield gateway

    async def reload(self, options: GatewayOptions | None = None) -> None:
        """Read the definitions again: stop what was removed or changed, start what is new.

        Other options are taken over first, and apply to the next call or connection.
        A server whose definition is unchanged keeps running, calls included; one that has failed is
        tried again at once.
        """
        async with self._reloading:
            self._options.take(options or self._options)
            async with self._database.snapshot() as database:
                definitions = await load_definitions(database)
                tokens = await list_tokens(database)
                approvals = await self._cache.approvals(database)
            for name, problem in definitions.unreadable:
                self._emit("server.skipped", server=name, message=problem.message)
            registry = self.registry
            wanted = {server.name: server for server in definitions.servers if server.active}
            kept = {
                name
                for name, upstream in tuple(registry.upstreams.items())
                if (new := wanted.get(name)) is not None
                and await same_definition(new, upstream.definition, self._unseal)
            }
            fresh = {
                name: self._upstream(server) for name, server in wanted.items() if name not in kept
            }
            await self._cache.restore(fresh.values(), approvals)
            before, shown = dict(registry.profiles), registry.shown()
            ending = [u for name, u in registry.upstreams.items() if name not in kept]
            staying = {name: registry.upstreams[name] for name in kept}
            judged = {
                name
                for name, upstream in staying.items()
                if upstream.definition.trust_annotations != wanted[name].trust_annotations
            }
            for name, upstream in staying.items():
                for each in (upstream, *(own for _, own in registry.owned_at(name))):
                    each.definition = wanted[name]
            registry.upstreams = {**staying, **fresh}
            policies = {token.id: token.policy for token in registry.tokens.values()}
            registry.tokens = {token.id: token for token in tokens}
            registry.define(definitions.profiles)
            self._limiter.replace(definitions.profiles, tokens)
            self._admission.replace(tokens)
            self._read_tokens_again({server.id for server in definitions.servers})
            for upstream in fresh.values():
                upstream.lifecycle.start(self._upstream_tasks)
                if self.broker.has_subscribers(upstream):
                    upstream.lifecycle.request()
            for upstream in staying.values():
                upstream.retry()
            async with asyncio.TaskGroup() as stopping:
                stopping.create_task(self._sharing.end_of({upstream.name for upstream in ending}))
                for upstream in ending:
                    stopping.create_task(upstream.lifecycle.stop())
            released = self._judge_again(staying, approvals)
            touched = {upstream.name for upstream in ending} | fresh.keys() | released | judged
            for profile, changed in self.registry.changed_views(before, shown, touched):
                self.broker.announce({profile}, changed)
            others = {t.id for t in tokens if policies.get(t.id, t.policy) != t.policy}
            self.broker.announce(registry.profiles, {CatalogKind.TOOLS}, others)

    def _judge_again(self, staying: Mapping[str, Upstream], approvals: Approvals) -> set[str]:
        """Apply the present options and approvals; return the servers whose held tools have changed."""
        released = set()
        for name, upstream in staying.items():
            for each in (upstream, *(own for _, own in self.registry.owned_at(name))):
                each.judge_by_options()
                if each.catalog.approve(approvals.get(upstream.definition.id, {})):
                    released.add(name)
        return released

    def admit(self, headers: dict[str, str]) -> ClientToken | None:
        """Return the token of a client that a request shows, taken out of its headers; raises TokenRefused."""
        return self._admission.admit(headers)

    def hold_refusal(self) -> Awaitable[list[tuple[bytes, bytes]]]:
        """Wait as long as a refusal has to, and return the headers that it then gets."""
        return self._admission.hold()

    def status(self) -> dict[str, Any]:
        """Return the state of each server (reason, next retry, number of tools) and the connected clients.

        `problem` says why the gateway as a whole is not ready.
        """
        servers = sorted(self.registry.upstreams.items())
        return {
            "servers": {name: state_of(upstream) for name, upstream in servers},
            "profiles": sorted(self.registry.profiles),
            "sessions": len(self.sessions),
            "tasks": len(asyncio.all_tasks()),
            "problem": None if self.problem is None else self.problem.as_json(),
            "replica": self.replica(),
            "copies": self.copies(),
        }

    def _read_tokens_again(self, servers: Collection[str]) -> None:
        """Forget the tokens, but no refresh under way: a server that has changed needs its outcome."""
        self._sources = {key: each for key, each in self._sources.items() if key in servers}
        for source in self._sources.values():
            source.forget()

    async def settle_tokens(self, server: ServerDefinition) -> None:
        """Wait for a refresh of the server's tokens that is under way."""
        if (source := self._sources.get(server.id)) is not None:
            await source.store_refreshed()

    def sign_in_changed(self, server: ServerDefinition, *, signed_in: bool) -> None:
        """Use the new tokens of a server, or none from now on.

        Connections that were made without a token, or are to have none, are closed.
        """
        source = self._sources.get(server.id)
        if source is not None:
            source.forget()
        if (source is None or not signed_in) and server.name in self.registry.upstreams:
            owned = (own for _, own in self.registry.owned_at(server.name))
            for upstream in (self.registry.upstreams[server.name], *owned):
                upstream.lifecycle.disconnect(
                    "it was signed in to" if signed_in else "it was signed out of"
                )

    async def check(self, definition: ServerDefinition) -> tuple[Identity, Fetched]:
        """Connect to a server that need not be stored, fetch its lists, and disconnect."""
        events = self.broker.events_of(self._upstream(definition))
        async with self._open_connection(definition, events) as connection:
            whole = Fetched()
            patience_s, asked = self._options.list_timeout_s, undeclared(connection)
            await fetch_lists(connection, LISTS, patience_s, whole.add, asked)
            if connection.sign_in is not None:
                raise connection.sign_in
            return connection.identity, whole

    # --- internals ------------------------------------------------------------------------------

    def _upstream(self, definition: ServerDefinition, owner: object = None) -> Upstream:
        return Upstream(
            definition, self._options, self._open_connection, self._hooks, self._emit, owner
        )

    @asynccontextmanager
    async def _open_connection(
        self, definition: ServerDefinition, events: Events
    ) -> AsyncIterator[Connection]:
        definition = await with_values(definition, self._unseal)
        source = await self._token_source(definition)
        middlewares = () if source is None else (source,)
        async with open_connection(
            definition, events, self._reaper, self._options, middlewares
        ) as connection:
            yield connection

    async def _token_source(self, definition: ServerDefinition) -> TokenSource | None:
        """Return what authorizes requests to a server, if a person has signed in to it."""
        given = any(name.lower() == "authorization" for name in definition.headers)
        if self._sign_ins is None or definition.kind is ServerKind.STDIO or given:
            return None
        try:
            if await self._sign_ins.load(definition) is None:
                self._sources.pop(definition.id, None)
                return None
        except GatewayError as error:
            raise UpstreamDisconnected(as_reason(error), unsent=True) from error
        source = self._sources.get(definition.id)
        if source is None:
            from local_mcp_gateway.gateway.oauth import TokenSource

            source = TokenSource(self._sign_ins, self._emit, self._refreshes)
            self._sources[definition.id] = source
        source.use(definition)
        return source

    def _listed(
        self,
        upstream: Upstream,
        changed: frozenset[CatalogKind],
        announced: frozenset[CatalogKind],
    ) -> None:
        """Store the lists that an upstream has fetched and that changed, and notify the clients."""
        registry = self.registry
        if upstream.owner is not None:
            registry.listed(upstream)
            self._sharing.compare(upstream)
            self.broker.announce_to(upstream.owner, changed | announced)
            return
        if registry.upstreams.get(upstream.name) is not upstream:
            return
        if changed:
            registry.forget_views(registry.profiles_of(upstream.name))
        if changed or upstream.catalog.unsaved:
            self._cache.keep(upstream, changed)
        self.broker.announce(registry.profiles_of(upstream.name), announced)

    def _on_disconnect(self, session: Session) -> None:
        self.broker.on_disconnect(session)

    def _end_removed(self) -> None:
        self.broker.end_removed(self._admission.still_admits)

    def _failed(self, error: Exception) -> None:
        self._emit("task.failed", message=described(error))

    async def _close(self) -> None:
        await self._reaper.close()
        for source in self._sources.values():
            await source.store_refreshed()
