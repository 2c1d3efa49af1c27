"""One upstream server: connect on demand, stay connected, back off and reconnect.

    idle ──a call or a list needs it──▶ connecting ──handshake──▶ ready ──idle timeout──▶ idle
                  ▲                          │ fails                │ lost
                  └──── delay, or a call ─── failed ◀───────────────┘

Each upstream has its own task. Only a call to this very server waits for it, with a deadline. The last
known lists stay in `catalog` whatever happens. Delays double up to `backoff_max_s`, with jitter, so
that servers that died together do not reconnect together; a call ends a delay early, at most once a
second.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.gateway.catalog import LISTS, Lists, ServerCatalog
from local_mcp_gateway.gateway.protocol import Answer, decode_any, encode, jsonrpc
from local_mcp_gateway.gateway.tasks import Deadline, TaskScope, TimerWheel
from local_mcp_gateway.gateway.upstreams.backoff import (
    ConnectionWaiters,
    UpstreamState,
    backoff_s,
    moment_in,
)
from local_mcp_gateway.gateway.upstreams.catalog_sync import METHODS, CatalogSync
from local_mcp_gateway.gateway.upstreams.connection import (
    SAFE,
    SILENT,
    Call,
    Connection,
    Events,
    Identity,
    SignInNeeded,
    UpstreamDisconnected,
)
from local_mcp_gateway.gateway.upstreams.starting import Settling, StartDeadline
from local_mcp_gateway.log import Emit, redact_text
from local_mcp_gateway.store import CatalogKind, ServerDefinition, ServerKind, Share

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from local_mcp_gateway.gateway.options import GatewayOptions

KEPT_LINES: Final = 20
"""How many of the server's last lines are kept for `server show`."""
PONG_S: Final = 5.0
"""How long a server that let a call time out may take to answer a ping."""
OTHER_CLIENT: Final = "it is told the capabilities of another client"
DOWN: Final = frozenset({UpstreamState.FAILED, UpstreamState.NEEDS_SIGN_IN})
LEAST_PAUSE_S: Final = 1.0
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


ENDED: Final = "the server was removed or the gateway stops"
ANYBODY: Final = "anybody"
"""In place of a client without a session: it cannot be told from others after its call."""
SEVERAL: Final = "several"
"""In place of a client: several have used a connection, or one that cannot be told from others."""
NOBODY: Final = "nobody"
"""In place of an owner: a connection that ends with its last call."""


class Upstream:
    """One connection to a server at a time, for all clients or for one. Call `start` once.

    It ends with its task group, or by `stop`.
    """

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
        self.state = UpstreamState.IDLE
        self.reason: str | None = None
        self.retry_at: str | None = None
        self.stderr_lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._options = options
        self._open = open_connection
        self._hooks = hooks
        self._emit = emit
        self._events = hooks.events(self)
        self._connection: Connection | None = None
        self._wanted = asyncio.Event()
        self._waiters = ConnectionWaiters()
        self._timers = TimerWheel(min(1.0, self._call_timeout_s / 10))
        self._settling = Settling()
        self._start_deadline = StartDeadline(self._starts_slowly, self._events.failed)
        self._told_slow = False
        """Whether the log says that the present start is slow."""
        self._quiet = asyncio.Event()
        self._notifying = 0
        self._last_used = time.monotonic()
        self._life: asyncio.Future[None] | None = None
        self._connection_tasks: TaskScope | None = None
        """Tasks that run as long as the connection."""
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

    @property
    def last_used(self) -> float:
        """When the last call ended or the connection was made, in seconds of the monotonic clock."""
        return self._last_used

    @property
    def told(self) -> bytes | None:
        """The capabilities of clients that the connected server was told; None without a handshake."""
        connection = self._connection
        return None if connection is None or connection.lost is not None else connection.told

    @property
    def connected(self) -> bool:
        """Whether the server is connected now."""
        return self._connection is not None

    @property
    def pid(self) -> int | None:
        """Return the process id of a running child, else None."""
        return getattr(self._connection, "pid", None)

    def start(self, tasks: TaskScope) -> None:
        """Start the task; it connects when something needs the server."""
        self._life = tasks.start(self._live)
        self._life.add_done_callback(lambda _: self._waiters.reject(ENDED))

    async def stop(self) -> None:
        """Close the connection and end the child's whole process tree; waiting calls fail."""
        if self._life is not None:
            self._life.cancel()
            await asyncio.wait((self._life,))

    def request_connection(self) -> None:
        """Request a connection, without waiting for it."""
        if self._connection is None and self.state not in DOWN:
            self._wanted.set()

    def introduce(self, capabilities: object) -> None:
        """Request a connection; a new one, if nobody has called this server, and it was told otherwise.

        Once it was called, it may keep what it has done.
        """
        connection = self._connection
        told = None if connection is None else connection.told
        fresh = told is not None and self.user is None and not self.busy
        if connection and told and fresh and decode_any(told) != decode_any(encode(capabilities)):
            connection.disconnect(OTHER_CLIENT)
            self._wanted.set()
        self.request_connection()

    def reconnect(self, reason: str) -> None:
        """Close the connection, if there is one; the next call or list opens another."""
        if self._connection is not None:
            self._connection.disconnect(reason)

    def retry(self) -> None:
        """Connect at once if that failed; a server behind a URL is asked whether it still answers."""
        if self.state in DOWN:
            self._wanted.set()
        elif (
            self.definition.kind is not ServerKind.STDIO
            and self._connection is not None
            and self._connection_tasks is not None
        ):
            self._connection_tasks.start(self._ping, self._connection)

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
            self._wanted.set()
            await self.catalog_sync.catalog_ready.wait()

    def wait_for_own_lists(self) -> None:
        """Connect, and let requests wait for the lists: this client may be shown others than are known."""
        self.catalog_sync.catalog_ready.clear()
        self.request_connection()

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
                connection = self._connection
                try:
                    if self._life is not None and self._life.done():
                        return self._unavailable(ENDED)
                    if connection is None or connection.lost is not None:
                        self._wanted.set()
                        async with asyncio.timeout(self._call_timeout_s):
                            connection = await self._waiters.wait()
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
            if self._connection is None and self.reason is not None:
                return self._unavailable(self.reason)
            self._suspect()
            text = f"The server {self.name!r} did not answer within {self._call_timeout_s:g} s"
            return jsonrpc.failure(jsonrpc.UPSTREAM_UNAVAILABLE, text, {"server": self.name})
        finally:
            self.in_flight.discard(call)
            self._quiet.set()
            self._last_used = time.monotonic()

    def _suspect(self) -> None:
        """After a call that timed out, end a child that does not answer a ping either."""
        if (
            self._connection is not None
            and self._connection_tasks is not None
            and not self._checking
        ):
            self._checking = True
            self._connection_tasks.start(self._check, self._connection)

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
        connection = self._connection
        if connection is None or connection.lost is not None:
            self._wanted.set()
            connection = await self._waiters.wait()
        if self.keeps is None:
            await connection.keeps_sessions()
        return bool(self.keeps)

    async def notify(self, method: str, params: bytes) -> None:
        """Forward a notification, unless the server is not connected or too many already wait."""
        if self._connection is None or self._notifying >= MOST_NOTIFICATIONS:
            return
        self._notifying += 1
        try:
            with suppress(UpstreamDisconnected):
                await self._connection.notify(method, params)
        finally:
            self._notifying -= 1

    # --- connection task ------------------------------------------------------------------------

    async def _live(self) -> None:
        failures = 0
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            began = time.monotonic()
            try:
                reason = await self._one_connection()
            except Exception as error:  # noqa: BLE001  whatever one server does stays with that server
                reason = f"{type(error).__name__}: {error}"
            if reason is None or self.owner is not None:
                self.state, self.reason = UpstreamState.IDLE, reason
                if reason is not None:  # its client needs it, or not: nothing reconnects by itself
                    self._waiters.reject(reason)
                    self.catalog_sync.catalog_ready.set()
                failures = 0
                continue
            lived_s = time.monotonic() - began
            failures = 1 if self.state is UpstreamState.READY and lived_s > 10 else failures + 1
            await self._pause(reason, failures, began)

    async def _one_connection(self) -> str | None:
        """Connect and stay until the connection is lost. Return why, or None after an idle stop."""
        self.state, self.retry_at, self._told_slow = UpstreamState.CONNECTING, None, False
        began, limit_s = time.perf_counter(), self._options.connect_timeout_s
        async with AsyncExitStack() as stack:
            stack.callback(self._went_down)
            try:
                async with self._start_deadline.within(limit_s, self.stderr_lines):
                    opening = self._open(self.definition, self._events)
                    connection = await stack.enter_async_context(opening)
            except SignInNeeded as needed:
                self.state = UpstreamState.NEEDS_SIGN_IN
                return needed.reason
            except UpstreamDisconnected as lost:
                return lost.reason
            except TimeoutError:
                took_s = round(time.perf_counter() - began)
                waited_s = max(limit_s, took_s)
                return f"it did not answer within {waited_s:g} s (upstream.connect_timeout_s)"
            async with TaskScope(self._events.failed) as tasks:
                self._connection_tasks = tasks
                self._came_up(connection, began)
                tasks.start(self._keep_lists, connection)
                if not self._settling.done.is_set():
                    listed, patience_s = self.catalog_sync.fetched, self._options.list_timeout_s
                    tasks.start(self._settling.run, listed, patience_s, lambda: self.asks)
                try:
                    reason = await self._until_lost_or_idle(connection)
                    if connection.sign_in is not None:
                        self.state = UpstreamState.NEEDS_SIGN_IN
                    return None if reason == OTHER_CLIENT else reason
                finally:
                    self._connection = self._connection_tasks = None
                    self._settling.done.set()  # what waits for it finds the connection lost

    def _starts_slowly(self, took_s: float, line: str | None) -> None:
        """Say that a child is still starting, in the log once for each start."""
        self.reason = f"it has been starting for {took_s:.0f} s" + (f": {line}" if line else "")
        if not self._told_slow:
            self._emit("upstream.starting", server=self.name, duration_ms=took_s * 1000)
        self._told_slow = True

    def child_started(self, pid: int) -> None:
        """Record the child that is to answer."""
        self._start_deadline.child_started(pid)

    async def gives_roots(self, asking: Awaitable[Answer]) -> Answer:
        """Return the client's roots; calls wait for them if the connection is new."""
        return await self._settling.gives_roots(asking)

    async def _keep_lists(self, connection: Connection) -> None:
        """Keep the lists fresh; if that fails, close the connection so that the next one starts over."""
        try:
            await self.catalog_sync.run(connection)
        except Exception as error:
            connection.disconnect(f"its lists could not be kept: {error}")
            raise

    def _came_up(self, connection: Connection, began: float) -> None:
        self.state, self.reason, self.retry_at = UpstreamState.READY, None, None
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
        self._connection = connection
        self.extensions = self.identity.extensions
        if self.owner is None:
            self.user = None
        if known and not self.asks:
            self._settling.done.set()
        else:  # it may ask for roots now, and calls would arrive before it has them
            self._settling.done.clear()
        self._wanted.clear()
        self._last_used = time.monotonic()
        self._hooks.connected(self)  # initial notifications go out before the waiting calls
        self._waiters.resolve(connection)
        self._emit(
            "upstream.connected",
            server=self.name,
            kind=self.definition.kind.value,
            protocol=connection.identity.version,
            duration_ms=round((time.perf_counter() - began) * 1000, 1),
            pid=self.pid,
        )
        if self.definition.insecure:
            self._emit("upstream.unverified", server=self.name)

    def _went_down(self) -> None:
        if self.state is UpstreamState.READY:
            self._emit("upstream.stopped", server=self.name)

    async def _until_lost_or_idle(self, connection: Connection) -> str | None:
        own = self.definition.idle_stop_s
        limit = self._options.idle_stop_s if own is None else own
        shared = self.owner is None and self.definition.kind is not ServerKind.STDIO
        if limit <= 0 or (shared and own is None):
            return await connection.wait_closed()
        while True:
            left_s = self._last_used + limit - time.monotonic()
            if left_s <= 0 and not self.busy and not self._hooks.has_subscribers(self):
                return None
            with suppress(TimeoutError):
                async with asyncio.timeout(max(left_s, 1.0)):
                    return await connection.wait_closed()

    async def _pause(self, reason: str, failures: int, began: float) -> None:
        """Wait before the next attempt; a call ends the wait early.

        Calls that waited for an attempt that failed fail with it. Those that arrived while a lost
        connection was being closed wait for the next one.
        """
        person = self.state is UpstreamState.NEEDS_SIGN_IN
        if self.state is UpstreamState.CONNECTING or person:
            self._waiters.reject(reason)
        pause_s = None if person else backoff_s(failures, self._options.backoff_max_s)
        self.state = UpstreamState.NEEDS_SIGN_IN if person else UpstreamState.FAILED
        self.reason, self.retry_at = reason, None if pause_s is None else moment_in(pause_s)
        # Nobody waits for the lists of a server that is down: they arrive when it reconnects.
        self.catalog_sync.catalog_ready.set()
        retry = {} if pause_s is None else {"retry_s": round(pause_s, 2)}
        self._emit("upstream.lost", server=self.name, reason=reason, **retry)
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._wanted.wait()
                await asyncio.sleep(max(0.0, began + LEAST_PAUSE_S - time.monotonic()))
        self._wanted.set()

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
        self.stderr_lines = other.stderr_lines
        if other.catalog.lists is not None:
            self.catalog.copy(other.catalog)
            self.catalog_sync.catalog_ready.set()

    def _unavailable(self, reason: str) -> Answer:
        text = f"The server {self.name!r} is not available: {redact_text(reason)}"
        data = {"server": self.name, "retry_at": self.retry_at}
        return jsonrpc.failure(jsonrpc.UPSTREAM_UNAVAILABLE, text, data)
