"""The life of a connection to one server: made on demand, kept, and made again after a delay.

    idle ──a call or a list needs it──▶ connecting ──handshake──▶ ready ──idle timeout──▶ idle
                  ▲                          │ fails                │ lost
                  └──── delay, or a call ─── failed ◀───────────────┘

Delays double up to `backoff_max_s`, with jitter, so that servers that died together do not reconnect
together; a call ends a delay early, at most once a second.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

from local_mcp_gateway.formats import iso
from local_mcp_gateway.gateway.tasks import TaskScope
from local_mcp_gateway.gateway.upstreams.backoff import backoff_s
from local_mcp_gateway.gateway.upstreams.connection import (
    Connection,
    SignInNeeded,
    UpstreamDisconnected,
    reject,
)
from local_mcp_gateway.gateway.upstreams.starting import StartDeadline
from local_mcp_gateway.store import ServerKind

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from local_mcp_gateway.gateway.options import GatewayOptions
    from local_mcp_gateway.log import Emit
    from local_mcp_gateway.store import ServerDefinition

KEPT_LINES: Final = 20
"""How many of the server's last lines are kept for `server show`."""
OTHER_CLIENT: Final = "it is told the capabilities of another client"
ENDED: Final = "the server was removed or the gateway stops"
LEAST_PAUSE_S: Final = 1.0
LONG_S: Final = 10
"""A connection that lasted longer counts as good: the next delay is a short one again."""


class UpstreamState(StrEnum):
    """The state of an upstream."""

    IDLE = "idle"
    CONNECTING = "connecting"
    READY = "ready"
    FAILED = "failed"
    NEEDS_SIGN_IN = "needs_sign_in"
    """It failed, and only a person can change that: it is tried when something needs it."""


DOWN: Final = frozenset({UpstreamState.FAILED, UpstreamState.NEEDS_SIGN_IN})


class ConnectionUser(Protocol):
    """What opens and uses the connection. Called on the event loop."""

    owner: object
    """The client that has the connection for itself: then it is not made again without a call."""

    @property
    def in_use(self) -> bool:
        """Whether the connection has to stay, however long nobody has called."""

    def open_connection(self) -> AbstractAsyncContextManager[Connection]:
        """Connect, and disconnect at the end of the block."""

    def on_connect(self, connection: Connection, tasks: TaskScope) -> None:
        """Take note of a new connection, before those that wait for it; `tasks` end with it."""

    async def while_connected(self, connection: Connection) -> None:
        """Run as long as the connection."""

    def on_disconnect(self) -> None:
        """Take note that the connection has ended."""

    def on_failure(self) -> None:
        """Take note that there is no connection for now: it was lost, or could not be made."""

    def task_failed(self, error: Exception) -> None:
        """Report that a task has failed, which is a bug of ours."""


class ConnectionLifecycle:
    """Connects to a server when something needs it, and reconnects when that was lost. Call `start` once.

    It ends with its task group, or by `stop`.
    """

    def __init__(
        self,
        definition: ServerDefinition,
        options: GatewayOptions,
        user: ConnectionUser,
        emit: Emit,
    ) -> None:
        self.state = UpstreamState.IDLE
        self.reason: str | None = None
        self.retry_at: str | None = None
        self.stderr_lines: deque[str] = deque(maxlen=KEPT_LINES)
        self.connection: Connection | None = None
        self.tasks: TaskScope | None = None
        """Tasks that run as long as the connection."""
        self.last_used = time.monotonic()
        """When the last call ended or the connection was made, in seconds of the monotonic clock."""
        self._definition = definition
        self._options = options
        self._user = user
        self._emit = emit
        self._wanted = asyncio.Event()
        self._waiters: set[asyncio.Future[Connection]] = set()
        self._start_deadline = StartDeadline(self._starts_slowly, user.task_failed)
        self._told_slow = False
        """Whether the log says that the present start is slow."""
        self._life: asyncio.Future[None] | None = None

    @property
    def pid(self) -> int | None:
        """Return the process id of a running child, else None."""
        return getattr(self.connection, "pid", None)

    @property
    def declared(self) -> bytes | None:
        """The capabilities of clients that were declared to the connected server; None without a handshake."""
        connection = self.connection
        return None if connection is None or connection.lost is not None else connection.declared

    @property
    def is_down(self) -> bool:
        """Whether the last connection was lost, or could not be made."""
        return self.state in DOWN

    def start(self, tasks: TaskScope) -> None:
        """Start the task; it connects when something needs the server."""
        self._life = tasks.start(self._run)
        self._life.add_done_callback(lambda _: self._reject(ENDED))

    async def stop(self) -> None:
        """Close the connection and end the child's whole process tree; waiting calls fail."""
        if self._life is not None:
            self._life.cancel()
            await asyncio.wait((self._life,))

    def request(self) -> None:
        """Request a connection, without waiting for it; one that was lost is made again in its time."""
        if self.connection is None and not self.is_down:
            self._wanted.set()

    def connect_now(self) -> None:
        """End the delay after a failure, if there is one, and connect."""
        self._wanted.set()

    async def connect(self) -> Connection:
        """Return the connection, or the next one; raise UpstreamDisconnected if that cannot be made."""
        if self._life is not None and self._life.done():
            raise UpstreamDisconnected(ENDED)
        if self.connection is not None and self.connection.lost is None:
            return self.connection
        self._wanted.set()
        waiter: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            return await waiter
        finally:
            self._waiters.discard(waiter)

    def disconnect(self, reason: str) -> None:
        """Close the connection, if there is one; the next call or list opens another."""
        if self.connection is not None:
            self.connection.disconnect(reason)

    def child_started(self, pid: int) -> None:
        """Record the child that is to answer."""
        self._start_deadline.child_started(pid)

    # --- the task -------------------------------------------------------------------------------

    async def _run(self) -> None:
        failures = 0
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            began = time.monotonic()
            try:
                reason = await self._one_connection()
            except Exception as error:  # noqa: BLE001  whatever one server does stays with that server
                reason = f"{type(error).__name__}: {error}"
            if reason is None or self._user.owner is not None:
                self.state, self.reason = UpstreamState.IDLE, reason
                if reason is not None:  # its client needs it, or not: nothing reconnects by itself
                    self._reject(reason)
                    self._user.on_failure()
                failures = 0
                continue
            lived_s = time.monotonic() - began
            was_good = self.state is UpstreamState.READY and lived_s > LONG_S
            failures = 1 if was_good else failures + 1
            await self._pause(reason, failures, began)

    async def _one_connection(self) -> str | None:
        """Connect and stay until the connection is lost. Return why, or None after an idle stop."""
        self.state, self.retry_at, self._told_slow = UpstreamState.CONNECTING, None, False
        began, limit_s = time.perf_counter(), self._options.connect_timeout_s
        async with AsyncExitStack() as stack:
            stack.callback(self._went_down)
            try:
                async with self._start_deadline.within(limit_s, self.stderr_lines):
                    connection = await stack.enter_async_context(self._user.open_connection())
            except SignInNeeded as needed:
                self.state = UpstreamState.NEEDS_SIGN_IN
                return needed.reason
            except UpstreamDisconnected as lost:
                return lost.reason
            except TimeoutError:
                took_s = round(time.perf_counter() - began)
                waited_s = max(limit_s, took_s)
                return f"it did not answer within {waited_s:g} s (upstream.connect_timeout_s)"
            async with TaskScope(self._user.task_failed) as tasks:
                try:
                    self._came_up(connection, tasks, began)
                    tasks.start(self._user.while_connected, connection)
                    reason = await self._until_lost_or_idle(connection)
                    if connection.sign_in is not None:
                        self.state = UpstreamState.NEEDS_SIGN_IN
                    return None if reason == OTHER_CLIENT else reason
                finally:
                    self.connection = self.tasks = None
                    self._user.on_disconnect()

    def _starts_slowly(self, took_s: float, line: str | None) -> None:
        """Say that a child is still starting, in the log once for each start."""
        self.reason = f"it has been starting for {took_s:.0f} s" + (f": {line}" if line else "")
        if not self._told_slow:
            name = self._definition.name
            self._emit("upstream.starting", server=name, duration_ms=took_s * 1000)
        self._told_slow = True

    def _came_up(self, connection: Connection, tasks: TaskScope, began: float) -> None:
        self.state, self.reason, self.retry_at = UpstreamState.READY, None, None
        self.connection, self.tasks = connection, tasks
        self._wanted.clear()
        self.last_used = time.monotonic()
        self._user.on_connect(connection, tasks)  # its notifications go out before waiting calls
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(connection)
        self._emit(
            "upstream.connected",
            server=self._definition.name,
            kind=self._definition.kind.value,
            protocol=connection.identity.version,
            duration_ms=round((time.perf_counter() - began) * 1000, 1),
            pid=self.pid,
        )
        if self._definition.insecure:
            self._emit("upstream.unverified", server=self._definition.name)

    def _went_down(self) -> None:
        if self.state is UpstreamState.READY:
            self._emit("upstream.stopped", server=self._definition.name)

    async def _until_lost_or_idle(self, connection: Connection) -> str | None:
        own = self._definition.idle_stop_s
        limit = self._options.idle_stop_s if own is None else own
        shared = self._user.owner is None and self._definition.kind is not ServerKind.STDIO
        if limit <= 0 or (shared and own is None):
            return await connection.wait_closed()
        while True:
            left_s = self.last_used + limit - time.monotonic()
            if left_s <= 0 and not self._user.in_use:
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
            self._reject(reason)
        pause_s = None if person else backoff_s(failures, self._options.backoff_max_s)
        self.state = UpstreamState.NEEDS_SIGN_IN if person else UpstreamState.FAILED
        self.reason, self.retry_at = reason, None if pause_s is None else _moment_in(pause_s)
        self._user.on_failure()
        retry = {} if pause_s is None else {"retry_s": round(pause_s, 2)}
        self._emit("upstream.lost", server=self._definition.name, reason=reason, **retry)
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._wanted.wait()
                await asyncio.sleep(max(0.0, began + LEAST_PAUSE_S - time.monotonic()))
        self._wanted.set()

    def _reject(self, reason: str) -> None:
        """Fail all that wait for a connection."""
        for waiter in self._waiters:
            reject(waiter, reason)


def _moment_in(seconds: float) -> str:
    """Return the time that many seconds from now, ISO 8601 in UTC."""
    return iso(datetime.now(UTC) + timedelta(seconds=seconds))
