"""Keep clients apart: which connection to a server serves which client.

Clients share one connection to a server until something shows that the server treats them differently:

- it sends a client a request (roots, sampling, elicitation)
- it was told other capabilities than this client's, and its lists may depend on them
- it sends what belongs to one of several clients, without saying to which
- it opens a session for each client (HTTP)

From then on each client has a connection of its own, made with its own capabilities and ended with it:

    session       ──▶ a connection for as long as the session lasts
    stateless     ──▶ a connection for one call, if its client can be asked at all
    anybody else  ──▶ the shared one, on which nobody is asked anything

The connection on which a server sends its first request goes to the client that the request is for, before
that client answers; the others get a new one. If that client is not known, nobody answers. So an answer
never reaches a connection that another client uses later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.formats import counted
from local_mcp_gateway.gateway.clients import MEDIATED, beyond, differs
from local_mcp_gateway.gateway.protocol import Answer, encode, jsonrpc
from local_mcp_gateway.gateway.upstreams import (
    ANYBODY,
    NOBODY,
    OTHER_CLIENT,
    SEVERAL,
    Call,
    Caller,
    Upstream,
    UpstreamDisconnected,
)
from local_mcp_gateway.store import ServerKind, Share

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.clients import Session
    from local_mcp_gateway.gateway.routing.handlers import ClientRequest
    from local_mcp_gateway.gateway.routing.registry import Registry
    from local_mcp_gateway.gateway.tasks import TaskScope
    from local_mcp_gateway.store import ServerDefinition

MOST_CHILDREN: Final = 32
"""How many clients have a child of their own at one server, if it does not say (`max_clients`)."""
MOST_SESSIONS: Final = 1000
"""How many have a session of their own at one HTTP server: a session costs less than a process."""
Make = Callable[["ServerDefinition", object], Upstream]


class Sharing:
    """Gives connections to clients, and takes them back. `tasks` hold the connections."""

    def __init__(self, registry: Registry, make: Make, tasks: TaskScope) -> None:
        self._registry = registry
        self._make = make
        self._tasks = tasks

    # --- calls ----------------------------------------------------------------------------------

    async def call(self, upstream: Upstream, request: ClientRequest, call: Call) -> Answer:
        """Send a call over the connection that serves its client."""
        client = request.session or call.caller.client
        try:
            chosen = await self._choose(upstream, request, call.caller)
            return await chosen.call(call) if isinstance(chosen, Upstream) else chosen
        finally:
            if client is not request.session:  # its connections, given at first or meanwhile
                self.leave(client)

    def may_notify(self, upstream: Upstream, session: Session | None) -> bool:
        """Return whether a connection may get a client's notifications.

        Not one that others share at a server that keeps its clients apart: the client's own, when it
        gets one, begins without it.
        """
        share = upstream.definition.share
        apart = share is Share.NEVER or (
            share is Share.AUTO
            and (upstream.asks or (session is not None and bool(upstream.keeps)))
        )
        return upstream.owner is not None or not apart

    async def _choose(
        self, upstream: Upstream, request: ClientRequest, caller: Caller
    ) -> Upstream | Answer:
        """Return the connection that serves this request, or why there is none."""
        if request.session is not None:
            owned = self._registry.owned.get(request.session, {})
            if (own := owned.get(upstream.name)) is not None:
                own.use(request.session)
                return own
        if not await self._is_separate(upstream, request, caller):
            upstream.use(request.session or ANYBODY)
            return upstream
        if (own := self._new(upstream, request.session or caller.client)) is not None:
            own.use(own.owner)
            return own
        text = (
            f"The server {upstream.name!r} serves {counted(self._limit(upstream), 'client')} apart"
            " already (max_clients), and all of them wait for it"
        )
        data = {"server": upstream.name}
        return jsonrpc.failure(jsonrpc.UPSTREAM_UNAVAILABLE, text, data)

    async def _is_separate(
        self, upstream: Upstream, request: ClientRequest, caller: Caller
    ) -> bool:
        """Return whether this client gets a connection of its own."""
        share = upstream.definition.share
        if share is not Share.AUTO:
            return share is Share.NEVER
        if request.session is not None:
            apart = upstream.asks or self._differs(upstream, request.session)
            return apart or await self._keeps(upstream)
        identity = upstream.identity
        answers = request.modern and caller.capabilities not in {b"", b"{}"}
        translated = identity is not None and not identity.modern and not identity.both
        if not answers or not translated:
            return False
        declared = upstream.lifecycle.declared
        return upstream.asks or (declared is not None and beyond(declared, caller.capabilities))

    def connect_own(self, session: Session) -> None:
        """Give a new client its own connection to servers whose lists may depend on its capabilities."""
        for upstream in self._registry.members(session.profile):
            if upstream.definition.share is Share.AUTO and self._differs(upstream, session):
                own = self._new(upstream, session)
                if own is not None:
                    own.wait_for_own_lists()

    def _differs(self, upstream: Upstream, session: Session) -> bool:
        """Return whether the server was told other capabilities, and its lists may depend on them."""
        declared, identity = upstream.lifecycle.declared, upstream.identity
        if declared is None:  # not connected, or without a handshake
            return upstream.lists_differ and identity is not None and identity.alike is False
        if upstream.lists_differ:
            return differs(declared, session.capabilities)
        return bool(upstream.extensions) and differs(
            declared, session.capabilities, upstream.extensions
        )

    def compare(self, own: Upstream) -> None:
        """Find out from a client's own connection whether the lists depend on the capabilities.

        If they do not, clients share one again, which is told that it may ask for anything. One that was
        told its client's capabilities stays with that client, and the client's own ends if nothing has used it.
        """
        upstream = self._registry.upstreams.get(own.name)
        if upstream is None or upstream.identity is None or not upstream.lists_differ:
            return
        if upstream.identity.alike is not None:
            return
        ends = (upstream, own)
        declared = [end.lifecycle.declared for end in ends]
        listed = all(e.catalog_sync.fetched.is_set() and not e.catalog_sync.faults for e in ends)
        if not listed or None in declared or declared[0] == declared[1]:
            return
        alike = own.catalog.lists == upstream.catalog.lists
        may_ask = not beyond(upstream.lifecycle.declared or b"", encode(MEDIATED))
        if alike and not may_ask and upstream.user in {ANYBODY, SEVERAL}:
            return  # it may keep something for those who use it
        upstream.identity.alike = alike
        upstream.identity_updated()
        if not alike:
            return
        if not may_ask and upstream.user is not None:
            self._replace(upstream, upstream.user)
        elif not may_ask:
            upstream.lifecycle.disconnect(OTHER_CLIENT)
        if own.user is None and not own.busy:
            self._end(own.owner, own)

    async def _keeps(self, upstream: Upstream) -> bool:
        if upstream.keeps is None:
            with suppress(UpstreamDisconnected, TimeoutError):
                return await upstream.keeps_sessions()
        return bool(upstream.keeps)

    def _limit(self, upstream: Upstream) -> int:
        local = upstream.definition.kind is ServerKind.STDIO
        return upstream.definition.max_clients or (MOST_CHILDREN if local else MOST_SESSIONS)

    def _new(self, upstream: Upstream, owner: object) -> Upstream | None:
        """Return a new connection for this client; None if there are too many, and all are busy."""
        present = list(self._registry.owned_at(upstream.name))
        if len(present) >= self._limit(upstream):
            idle = [pair for pair in present if not pair[1].busy]
            if not idle:
                return None
            self._end(*min(idle, key=lambda pair: pair[1].lifecycle.last_used))
        own = self._make(upstream.definition, owner)
        own.learn_from(upstream)
        self._registry.owned.setdefault(owner, {})[upstream.name] = own
        own.lifecycle.start(self._tasks)
        return own

    # --- messages that belong to no call ---------------------------------------------------------

    def recipient(self, upstream: Upstream, callers: Sequence[Caller]) -> object:
        """Return whose message it is: a client, `SEVERAL` if that is not known, or None.

        None: the server speaks for itself, and no client has used this connection. A client with a
        session is meant only if it is the only one that ever has: the message may be about an earlier
        call. Clients without one cannot be told apart; theirs is meant that waits for a response.
        """
        clients = {caller.client for caller in callers}
        if not clients:
            clients = {call.caller.client for call in upstream.in_flight} - {None}
        user = upstream.user
        if len(clients) > 1 or (user is SEVERAL and upstream.definition.share is not Share.ALWAYS):
            return SEVERAL
        return next(iter(clients), user)

    def separate(self, upstream: Upstream, client: object) -> bool:
        """Keep the clients of a server apart from now on; return whether `client` has this connection now.

        It has not if others have calls running on it: their calls would see its answers.
        """
        others = {call.caller.client for call in upstream.in_flight} - {None, client}
        known = client not in {None, ANYBODY, SEVERAL} and not others
        if self._registry.upstreams.get(upstream.name) is not upstream:
            return False
        if upstream.asks and not known:
            return False
        if not upstream.asks:
            upstream.asks = True
            if upstream.identity is not None:
                upstream.identity.asks = True
                upstream.identity_updated()
        if not known and upstream.user is None:
            return False  # nobody has left anything on it
        self._replace(upstream, client if known else NOBODY)
        return known

    def _replace(self, upstream: Upstream, owner: object) -> None:
        """Give the shared connection to a client, or end it after its last call; others get a new one."""
        fresh = self._make(upstream.definition, None)
        fresh.learn_from(upstream)
        upstream.owner = owner
        self._registry.replace(upstream, fresh)
        fresh.lifecycle.start(self._tasks)
        if owner is NOBODY:
            self._tasks.start(self._drain, upstream)
        else:
            self._registry.owned.setdefault(owner, {})[upstream.name] = upstream

    async def _drain(self, upstream: Upstream) -> None:
        """End a connection that nobody owns after its last call."""
        await upstream.quiet()
        await upstream.lifecycle.stop()

    # --- ends ------------------------------------------------------------------------------------

    def leave(self, owner: object) -> None:
        """End the connections of a client that has left."""
        for own in tuple(self._registry.owned.get(owner, {}).values()):
            self._end(owner, own)
        for upstream in self._registry.upstreams.values():
            if upstream.user is owner:
                upstream.user = ANYBODY

    async def end_of(self, names: set[str]) -> None:
        """End every client's connection to servers that were removed or changed."""
        async with asyncio.TaskGroup() as stopping:
            for name in names:
                for owner, own in tuple(self._registry.owned_at(name)):
                    self._registry.disown(owner, name)
                    stopping.create_task(own.lifecycle.stop())

    def _end(self, owner: object, own: Upstream) -> None:
        self._registry.disown(owner, own.name)
        self._tasks.start(own.lifecycle.stop)
