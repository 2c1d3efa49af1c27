"""The interface of every upstream connection, what it knows of its server, and the call that is forwarded.

A connection ends with `UpstreamDisconnected`, and takes no more of the event loop than its `FairShare`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from local_mcp_gateway.gateway.protocol import (
    Answer,
    decode_any,
    edit,
    failure,
    jsonrpc,
    member,
    success,
    versions,
)
from local_mcp_gateway.gateway.tasks import TaskScope

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.upstreams.large_responses import Relay, StreamedResponse
    from local_mcp_gateway.gateway.upstreams.server_requests import ProgressTokens


LOST_CODES: Final = (-32601, -32022)
TURN_S: Final = 0.005
REST: Final = 2
"""How many times the length of its turn a server waits for the next one."""


class UpstreamDisconnected(Exception):
    """The connection ended or could not be made; `unsent` when the server never received the request."""

    def __init__(self, reason: str, *, unsent: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.unsent = unsent


def reject(waiting: asyncio.Future[Any], reason: str) -> None:
    """Raise UpstreamDisconnected where this is awaited; where nobody does any more, it is not reported."""
    if not waiting.done():
        waiting.set_exception(UpstreamDisconnected(reason))
        waiting.exception()  # retrieved, as asyncio sees it


class HttpRefusal(UpstreamDisconnected):
    """The server answered with an HTTP status and no JSON-RPC response."""

    def __init__(self, reason: str, status: int, body: bytes = b"") -> None:
        super().__init__(reason)
        self.status = status
        self.body = body


class SignInNeeded(HttpRefusal):
    """The server wants a token, and only a person can get one (again)."""

    def __init__(self, server: str, why: str = "it wants you to sign in (HTTP 401)") -> None:
        self.command = f"server login {server}"
        super().__init__(f"{why}: `{self.command}`", HTTPStatus.UNAUTHORIZED)


class SessionExpired(UpstreamDisconnected):
    """The server does not know our session, so it never processed the request."""

    def __init__(self, reason: str, refused: HttpRefusal | None = None) -> None:
        super().__init__(f"the server has lost its session: {reason}", unsent=True)
        self.refused = refused


class Identity(msgspec.Struct, omit_defaults=True):
    """What a server reported about itself in its handshake or `server/discover`, as stored."""

    version: str = versions.NEWEST_HANDSHAKE
    capabilities: dict[str, msgspec.Raw] = {}
    name: str = ""
    instructions: str | None = None
    modern: bool = False
    release: str = ""
    """The server's own version."""
    about: dict[str, Any] = {}
    """Its title, icons, website and description, for people."""
    both: bool | None = None
    """For stdio servers with a handshake: whether they speak the stateless protocol too, once known."""
    asks: bool = False
    """Whether it has asked a client something, so that its clients are kept apart."""
    alike: bool | None = None
    """For stdio servers: whether clients with different capabilities get the same lists, once known."""
    keeps: bool | None = None
    """Whether it opens a session for each client that makes a handshake, once known."""

    @property
    def extensions(self) -> tuple[str, ...]:
        """Return the names of the extensions that the server declares."""
        declared = decode_any(self.capabilities.get("extensions", b"{}"))
        return tuple(declared) if isinstance(declared, dict) else ()

    @property
    def makes_tasks(self) -> bool:
        """Whether the server has declared MCP tasks: those of 2025-11-25, or the extension."""
        if "tasks" in self.capabilities:
            return True
        declared = self.capabilities.get("extensions")
        return declared is not None and bool(member(declared, versions.TASKS))

    @property
    def lists_tasks(self) -> bool:
        """Whether the server lists its tasks: those of the extension are never listed."""
        declared = self.capabilities.get("tasks")
        return declared is not None and bool(member(declared, "list"))

    def is_release_of(self, other: Identity) -> bool:
        """Return whether this is the same server in the same version, so that cached findings still hold."""
        mine, others = (self.name, self.release), (other.name, other.release)
        return mine == others and self.version == other.version and self.modern == other.modern


class Connection(Protocol):
    """A live connection to one server. Unusable once `lost` is set; then create another.

    Each kind has `open`, a context manager: what the connection owns has ended when its block is left.
    """

    identity: Identity
    declared: bytes | None
    sign_in: SignInNeeded | None

    @property
    def lost(self) -> str | None:
        """Why the connection ended, or None while it is alive."""

    def request(self, call: Call) -> Coroutine[None, None, Answer]:
        """Forward one request. Cancelling this cancels it at the server."""

    async def keeps_sessions(self) -> bool:
        """Return whether the server opens a session for each client."""

    async def notify(self, method: str, params: bytes) -> None:
        """Send one notification."""

    async def wait_closed(self) -> str:
        """Return the reason when the connection has ended."""

    def disconnect(self, reason: str) -> None:
        """Close the connection: every call that waits fails."""


class OnNotification(Protocol):
    """Takes a notification."""

    def __call__(self, method: str, params: bytes, callers: Sequence[Caller] = (), /) -> None:
        """Pass it to the client that it belongs to."""


class OnRequest(Protocol):
    """Answers a request of a server."""

    def __call__(
        self,
        method: str,
        params: bytes,
        callers: Sequence[Caller] = (),
        /,
        *,
        sure: bool = False,
    ) -> Awaitable[Answer]:
        """Ask the client that it is meant for; `sure`: it is meant for the one caller."""


@dataclass(frozen=True, slots=True)
class Events:
    """Callbacks of a connection for messages that may belong to no call. Called on the event loop."""

    on_notification: OnNotification
    on_request: OnRequest
    """Both get the callers that the message may belong to, as far as the connection can tell."""
    initialize: Callable[[], bytes]
    """Returns the params of our `initialize`."""
    stderr_line: Callable[[str], None]
    """A line of a child's stderr."""
    remembered: Callable[[], Identity | None]
    """Returns what was stored about the server on an earlier connection."""
    tokens: ProgressTokens
    identity_updated: Callable[[], None]
    """Called when something new about the server has to be stored."""
    session_renewed: Callable[[], None]
    """Called when a server that had forgotten our session has a new one, in which nothing was said yet."""
    via: Callable[[], str]
    """Returns the gateways that each request is made for, see `hops`."""
    failed: Callable[[Exception], None]
    """A task of the connection has failed, which is a bug of ours."""
    started: Callable[[int], None]
    """Called with the process id of a child that was started."""


@dataclass(slots=True)
class Silent:
    """The caller of the gateway's own requests: drops notifications and refuses server requests."""

    capabilities: bytes = b"{}"
    log_level: str | None = None
    relay: None = None
    client: None = None

    def on_notification(self, method: str, params: bytes) -> None:
        """Drop the notification."""

    async def on_request(self, method: str, params: bytes) -> Answer:
        """Refuse the request."""
        return failure(-32601, f"Nobody is there to answer {method} ({len(params)} bytes)")


async def pong(_: str, __: bytes) -> Answer:
    """Respond to a server's ping."""
    return success({})


SILENT: Final = Silent()


class ConnectionBase:
    """Base of all connections. Create it on the event loop; `tasks` end with it."""

    def __init__(self, events: Events) -> None:
        self.identity = Identity()
        self.tasks = TaskScope(events.failed)
        self.declared: bytes | None = None
        """The capabilities of clients that were declared to the server; None without a handshake."""
        self.sign_in: SignInNeeded | None = None
        """Why it ended, if that was for want of a token."""
        self._events = events
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @property
    def lost(self) -> str | None:
        """Why the connection ended, or None while it is alive."""
        return self._lost.result() if self._lost.done() else None

    def introduction(self) -> bytes:
        """Return the params of our `initialize`."""
        params = self._events.initialize()
        self.declared = member(params, "capabilities")
        return params

    async def wait_closed(self) -> str:
        """Return the reason when the connection has ended."""
        return await asyncio.shield(self._lost)

    async def keeps_sessions(self) -> bool:
        """Return whether the server opens a session for each client."""
        return bool(self.identity.keeps)

    def disconnect(self, reason: str) -> None:
        """Close the connection; the next call opens a new one."""
        if not self._lost.done():
            self._lost.set_result(reason)


class FairShare:
    """One server's turn on the event loop, starting now. Waiting for the server counts as rest.

    A server that sends too much is read more slowly (ADR 34): its output waits in the pipe or socket
    until the server itself has to wait.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._used_s = 0.0
        self._began = self._left = clock()

    def begin(self) -> None:
        """Continue the turn after waiting for the server."""
        now = self._clock()
        used_s = self._used_s + self._left - self._began
        self._used_s = max(0.0, used_s - (now - self._left) / REST)
        self._began = self._left = now

    def rest_s(self) -> float:
        """Return how long to rest now: nothing until the turn is over."""
        self._left = self._clock()
        took_s = self._used_s + self._left - self._began
        return took_s * REST if took_s > TURN_S else 0.0

    async def rest(self) -> None:
        """Rest if the turn is over, and start a new one."""
        if rest_s := self.rest_s():
            await asyncio.sleep(rest_s)
            self._used_s = 0.0
            self._began = self._left = self._clock()


SAFE: Final = frozenset(
    {"ping", "resources/read", "prompts/get", "completion/complete", "resources/subscribe"}
)
"""Methods without side effects, so that a lost request may be sent again."""


CLIENT_HEADERS: ContextVar[Mapping[str, str]] = ContextVar("CLIENT_HEADERS")
"""The headers of the HTTP request that a call is made in, names in lower case; unset elsewhere."""


class Caller(Protocol):
    """Waits for a response and receives what the server sends before it."""

    @property
    def capabilities(self) -> bytes:
        """Return the capabilities that the client declared, as JSON."""

    @property
    def log_level(self) -> str | None:
        """Return the minimum severity of log messages that the client wants, or None."""

    @property
    def client(self) -> object:
        """Return a value shared by all calls of one client; None for the gateway's own calls."""

    def on_notification(self, method: str, params: bytes) -> None:
        """Receive a notification that belongs to this call."""

    async def on_request(self, method: str, params: bytes) -> Answer:
        """Respond to a request that the server makes during this call."""

    @property
    def relay(self) -> Relay | None:
        """Return the function that streams a large response, or None when it must be buffered."""


class Call(msgspec.Struct, eq=False):
    """A request to forward. `params` are bytes; the token is the client's own, as it wrote it."""

    method: str
    params: bytes
    caller: Caller
    modern: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    key: str | None = None
    whole: bool = False
    """Whether the response has to be buffered, because something in it is rewritten."""
    extend: Callable[[], None] = lambda: None
    token: bytes = b""
    identity: bytes = b""
    """The id under which it was last sent."""
    served_modern: bool = False
    """Whether it was sent in the stateless protocol."""
    begun: bool = False
    """Whether part of the response has reached the client, so that it cannot be retried."""

    async def relayed(self, large: StreamedResponse, relay: Relay) -> Answer:
        """Stream a response that is not buffered."""
        self.begun = True
        return Answer(b"", relayed_bytes=await relay(large))

    def prepared(self, identity: bytes) -> bytes:
        """Return the params for a request of that id, which replaces the progress token."""
        self.identity = identity
        if b"progressToken" not in self.params:
            return self.params
        meta = member(self.params, "_meta")
        self.token = jsonrpc.token_in(meta)
        if not self.token:
            return self.params
        return edit(self.params, {"_meta": edit(meta, {"progressToken": identity})})

    def on_notification(self, method: str, params: bytes) -> None:
        """Pass a notification to the caller, with the caller's own progress token restored."""
        self.extend()
        if method == "notifications/progress":
            if not self.token:
                return
            params = edit(params, {"progressToken": self.token})
        self.caller.on_notification(method, params)
