"""One upstream server: the calls that are forwarded to it, its lists, and which clients share it.

Only a call to this very server waits for its connection, with a deadline. The last known lists stay in
`catalog` whatever happens.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.gateway.catalog import LISTS, METHODS, Lists, ServerCatalog
from local_mcp_gateway.gateway.protocol import Answer, decode_any, encode, jsonrpc
from local_mcp_gateway.gateway.tasks import Deadline, TaskScope, TimerWheel
from local_mcp_gateway.gateway.upstreams.catalog_sync import CatalogSync
from local_mcp_gateway.gateway.upstreams.connection import (
    SAFE,
    SILENT,
    Call,
    Connection,
    Events,
    Identity,
    UpstreamDisconnected,
)
from local_mcp_gateway.gateway.upstreams.lifecycle import OTHER_CLIENT, ConnectionLifecycle
from local_mcp_gateway.gateway.upstreams.starting import Settling
from local_mcp_gateway.log import Emit, redact_text
from local_mcp_gateway.store import CatalogKind, ServerDefinition, ServerKind, Share

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from local_mcp_gateway.gateway.options import GatewayOptions

PONG_S: Final = 5.0
"""How long a server that let a call time out may take to answer a ping."""
MOST_NOTIFICATIONS: Final = 256
"""How many client notifications wait for a server that does not read; further ones are dropped."""

Open = Callable[["ServerDefinition", Events], "AbstractAsyncContextManager[Connection]"]


@dataclass(frozen=True, slots=True)
class Hooks:
    """Callbacks of an upstream, on the event loop: its identity and lists, and the server's messages."""

    listed: Callable[[Upstream, frozenset[CatalogKind], frozenset[CatalogKind]], None]
    """Called after lists were fetched: those to store, and those that clients are to fetch again."""
    connected: Callable[[Upstream], None]
    events: Callable[[Upstream], Events]
    has_subscribers: Callable[[Upstream], bool]
    """Returns whether a client subscribes to a resource of this server."""


ANYBODY: Final = "anybody"
"""In place of a client without a session: it cannot be told from others after its call."""
SEVERAL: Final = "several"
"""In place of a client: several have used a connection, or one that cannot be told from others."""
NOBODY: Final = "nobody"
"""In place of an owner: a connection that ends with its last call."""


class Upstream:
    """A server, for all clients or for one; its `lifecycle` has the connection."""

    def __init__(
        self,
        definition: ServerDefinition,
        options: GatewayOptions,
        open_connection: Open,
        hooks: Hooks,
        emit: Emit,
        owner: object = None,
    ) -> None:
        self.definition = definition
        self.owner = owner
        """The client that has this connection for itself; None: all others share it."""
        self.user: object = None
        """Who has sent calls over the present connection: None, one session, or `SEVERAL`."""
        self.asks = False
        """Whether the server asks its clients, so that each needs a connection of its own."""
        self.in_flight: set[Call] = set()
        self.extensions: tuple[str, ...] = ()
        """The extensions that the connected server declares."""
        self.identity: Identity | None = None
        self.catalog = ServerCatalog(
            hold=options.hold_altered_tools, hold_new=options.hold_new_tools
        )
        self.catalog_sync = CatalogSync(self.name, self.catalog, self._listed, options, emit)
        self.lifecycle = ConnectionLifecycle(definition, options, self, emit)
        self._events = hooks.events(self)
        self._open = open_connection
        self._options = options
        self._hooks = hooks
        self._timers = TimerWheel(min(1.0, self._call_timeout_s / 10))
        self._settling = Settling()
        self._quiet = asyncio.Event()
        self._notifying = 0
        self._checking = False

    def judge_by_options(self) -> None:
        """Hold altered and new tools by the present options."""
        options = self._options
        self.catalog.judge_by(hold=options.hold_altered_tools, hold_new=options.hold_new_tools)

    @property
    def _call_timeout_s(self) -> float:
        return float(self.definition.timeout_s or self._options.call_timeout_s)

    @property
    def name(self) -> str:
        """Return the server's name."""
        return self.definition.name

    @property
    def listed(self) -> frozenset[str]:
        """Return the capabilities whose lists have something in them, declared or not."""
        lists = self.catalog.lists or {}
        return frozenset(METHODS[kind][0] for kind in LISTS if lists.get(kind))

    @property
    def keeps(self) -> bool | None:
        """Whether the server keeps something for each client that makes a handshake, if that is known.

        That is a session, or over stdio tasks: all that it lists are its one client's.
        """
        identity = self.identity
        if self.definition.kind is ServerKind.STDIO:
            return identity is not None and "tasks" in identity.capabilities
        return None if identity is None else identity.keeps

    @property
    def lists_differ(self) -> bool:
        """Whether the lists may depend on the client's capabilities: not known yet, or known to."""
        if self.definition.share is not Share.AUTO or self.definition.kind is not ServerKind.STDIO:
            return False
        return self.identity is None or self.identity.alike is not True

    def serves(self, client: object) -> bool:
        """Return whether it is known already that this client uses the shared connection."""
        if self.definition.share is Share.AUTO:
            apart = self.asks or self.keeps is not False
            differ = self.extensions or self.lists_differ
            return not apart and (not differ or (self.user is client and client is not ANYBODY))
        return self.definition.share is Share.ALWAYS

    def use(self, client: object) -> None:
        """Note that this client sends a call over the shared connection."""
        if self.user is not client:
            self.user = client if self.user is None else SEVERAL

    @property
    def busy(self) -> bool:
        """Whether calls wait for a response."""
        return bool(self.in_flight)

    def introduce(self, capabilities: object) -> None:
        """Request a connection; a new one, if nobody has called this server, and it was told otherwise.

        Once it was called, it may keep what it has done.
        """
        connection = self.lifecycle.connection
        unused = self.user is None and not self.busy
        if connection and unused and _was_declared_other(connection, capabilities):
            connection.disconnect(OTHER_CLIENT)
            self.lifecycle.connect_now()
        self.lifecycle.request()

    def retry(self) -> None:
        """Connect at once if that failed; a server behind a URL is asked whether it still answers."""
        life = self.lifecycle
        if life.is_down:
            life.connect_now()
        elif self.definition.kind is not ServerKind.STDIO and life.connection and life.tasks:
            life.tasks.start(self._ping, life.connection)

    async def _ping(self, connection: Connection) -> None:
        """Ask for a sign of life: a connection on which everything is refused is lost with that."""
        with suppress(UpstreamDisconnected, TimeoutError):
            async with asyncio.timeout(PONG_S):
                await connection.request(Call("ping", b"", SILENT))

    @property
    def awaits_lists(self) -> bool:
        """Whether a request waits for the lists: none are known, or only those of other clients."""
        return self.catalog.lists is None or not self.catalog_sync.catalog_ready.is_set()

    async def catalog_ready(self) -> None:
        """Return once the lists are known; request a connection if they are not. No deadline."""
        if self.awaits_lists:
            self.lifecycle.connect_now()
            await self.catalog_sync.catalog_ready.wait()

    def wait_for_own_lists(self) -> None:
        """Connect, and let requests wait for the lists: this client may be shown other lists than those known."""
        self.catalog_sync.catalog_ready.clear()
        self.lifecycle.request()

    def _listed(self, changed: frozenset[CatalogKind], announced: frozenset[CatalogKind]) -> None:
        """Report fetched lists: those to store, and those that clients are to fetch again."""
        self._hooks.listed(self, changed, announced)

    def identity_updated(self) -> None:
        """Report that there is more to store about the server."""
        self._hooks.listed(self, frozenset({CatalogKind.INITIALIZE}), frozenset())

    async def call(self, call: Call) -> Answer:
        """Forward a request. A request that the server never received is sent once more."""
        self.in_flight.add(call)
        attempts = 0
        try:
            while True:
                attempts += 1
                connection = self.lifecycle.connection
                try:
                    if connection is None or connection.lost is not None:
                        async with asyncio.timeout(self._call_timeout_s):
                            connection = await self.lifecycle.connect()
                    if not self._settling.done.is_set() and call.caller is not SILENT:
                        await self._settling.done.wait()
                    with Deadline(self._timers, self._call_timeout_s) as deadline:
                        call.extend = deadline.extend
                        return await connection.request(call)
                except UpstreamDisconnected as lost:
                    repeatable = lost.unsent or call.method in SAFE
                    if attempts == 2 or call.begun or not repeatable:
                        return self._unavailable(lost.reason)
        except TimeoutError:
            reason = self.lifecycle.reason
            if self.lifecycle.connection is None and reason is not None:
                return self._unavailable(reason)
            self._suspect()
            text = f"The server {self.name!r} did not answer within {self._call_timeout_s:g} s"
            return jsonrpc.failure(jsonrpc.UPSTREAM_UNAVAILABLE, text, {"server": self.name})
        finally:
            self.in_flight.discard(call)
            self._quiet.set()
            self.lifecycle.last_used = time.monotonic()

    def _suspect(self) -> None:
        """After a call that timed out, end a child that does not answer a ping either."""
        life = self.lifecycle
        if life.connection and life.tasks and not self._checking:
            self._checking = True
            life.tasks.start(self._check, life.connection)

    async def _check(self, connection: Connection) -> None:
        patience_s = min(PONG_S, self._call_timeout_s)
        try:
            async with asyncio.timeout(patience_s):
                await connection.request(Call("ping", b"", SILENT))
        except TimeoutError:
            connection.disconnect(f"it does not answer, nor to a ping within {patience_s:g} s")
        except UpstreamDisconnected:
            pass
        finally:
            self._checking = False

    async def quiet(self) -> None:
        """Return once no call waits for a response."""
        while self.in_flight:
            self._quiet.clear()
            await self._quiet.wait()

    async def keeps_sessions(self) -> bool:
        """Find out whether the HTTP server opens a session for each client. Raises UpstreamDisconnected."""
        connection = await self.lifecycle.connect()
        if self.keeps is None:
            await connection.keeps_sessions()
        return bool(self.keeps)

    async def notify(self, method: str, params: bytes) -> None:
        """Forward a notification, unless the server is not connected or too many already wait."""
        connection = self.lifecycle.connection
        if connection is None or self._notifying >= MOST_NOTIFICATIONS:
            return
        self._notifying += 1
        try:
            with suppress(UpstreamDisconnected):
                await connection.notify(method, params)
        finally:
            self._notifying -= 1

    # --- as the connection comes and goes --------------------------------------------------------

    @property
    def in_use(self) -> bool:
        """Whether the connection has to stay, however long nobody has called."""
        return self.busy or self._hooks.has_subscribers(self)

    def open_connection(self) -> AbstractAsyncContextManager[Connection]:
        """Connect, and disconnect at the end of the block."""
        return self._open(self.definition, self._events)

    def on_connect(self, connection: Connection, tasks: TaskScope) -> None:
        """Take over what the server says about itself; hold calls back if it asks for something first."""
        before, self.identity = self.identity, connection.identity
        known = before is not None and before.is_release_of(self.identity)
        if before is not None and known:
            self.asks = self.asks or before.asks
            self.identity.alike = before.alike
            self.identity.keeps = (
                before.keeps if self.identity.keeps is None else self.identity.keeps
            )
        self.identity.asks = self.asks
        if before is not None and before != self.identity:
            self.identity_updated()
        self.extensions = self.identity.extensions
        if self.owner is None:
            self.user = None
        if known and not self.asks:
            self._settling.done.set()
        else:  # it may ask for roots now, and calls would arrive before it has them
            self._settling.done.clear()
            listed, patience_s = self.catalog_sync.fetched, self._options.list_timeout_s
            tasks.start(self._settling.run, listed, patience_s, lambda: self.asks)
        self._hooks.connected(self)

    async def while_connected(self, connection: Connection) -> None:
        """Keep the lists fresh; if that fails, close the connection so that the next one starts over."""
        try:
            await self.catalog_sync.run(connection)
        except Exception as error:
            connection.disconnect(f"its lists could not be kept: {error}")
            raise

    def on_disconnect(self) -> None:
        """Let the calls through that are held back: they find the connection lost."""
        self._settling.done.set()

    def on_failure(self) -> None:
        """Let nobody wait for the lists of a server that is down: they arrive when it reconnects."""
        self.catalog_sync.catalog_ready.set()

    def task_failed(self, error: Exception) -> None:
        """Report that a task has failed, which is a bug of ours."""
        self._events.failed(error)

    async def gives_roots(self, asking: Awaitable[Answer]) -> Answer:
        """Return the client's roots; calls wait for them if the connection is new."""
        return await self._settling.gives_roots(asking)

    def restore_from_cache(
        self, identity: Identity, lists: Lists, approved: Mapping[str, bytes]
    ) -> None:
        """Load what the database stores about this server."""
        self.identity, self.asks = identity, identity.asks
        self.catalog_sync.warn(self.catalog.restore_from_cache(lists, approved))
        self.catalog_sync.catalog_ready.set()

    def learn_from(self, other: Upstream) -> None:
        """Take over what another connection to the same server has found out."""
        self.identity, self.asks = other.identity, other.asks
        self.lifecycle.stderr_lines = other.lifecycle.stderr_lines
        if other.catalog.lists is not None:
            self.catalog.copy(other.catalog)
            self.catalog_sync.catalog_ready.set()

    def _unavailable(self, reason: str) -> Answer:
        text = f"The server {self.name!r} is not available: {redact_text(reason)}"
        data = {"server": self.name, "retry_at": self.lifecycle.retry_at}
        return jsonrpc.failure(jsonrpc.UPSTREAM_UNAVAILABLE, text, data)


def _was_declared_other(connection: Connection, capabilities: object) -> bool:
    """Return whether other client capabilities than these were declared to the server."""
    if not connection.declared:
        return False
    return bool(decode_any(connection.declared) != decode_any(encode(capabilities)))
