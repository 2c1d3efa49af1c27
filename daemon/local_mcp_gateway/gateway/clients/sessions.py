"""Sessions of handshake clients: capabilities, pending server requests and outgoing messages."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from typing import Final

from local_mcp_gateway.gateway.clients.capabilities import (
    LEVELS,
    LONGEST_NAME,
    name_of_client,
    refusal,
)
from local_mcp_gateway.gateway.clients.event_store import (
    GRACE_S,
    EventStore,
    EventStream,
    MemoryBudget,
    Outbox,
    ReplayBuffer,
    resync_messages,
)
from local_mcp_gateway.gateway.protocol import Answer, Envelope, decode_any, jsonrpc, versions

KEPT_EVENTS: Final = 256
"""How many messages of the GET stream are kept for a client that resumes with Last-Event-ID."""
IDLE_S: Final = 24 * 3600
USED_S: Final = 600.0
"""How long a client that has no stream open counts as there after a request."""
LOOK_S: Final = 600.0
"""Minimum interval between two searches for unused sessions."""

REMEMBERED_S: Final = 1.0
"""How long a cancellation waits for its request: over HTTP it may arrive first, on another connection."""
MOST_REMEMBERED: Final = 100
MOST_SESSIONS: Final = 10_000
MOST_UNUSED: Final = 1_000
"""Maximum sessions that were opened but never used."""
MOST_BUSY: Final = 8
"""How many busy sessions of a client are skipped before the table grows instead."""


@dataclass(frozen=True, slots=True)
class Question:
    """A server request that the client has not responded to yet."""

    _future: asyncio.Future[Answer]
    in_stream: bool
    """Whether it was sent in the client's GET stream; else in the stream of a call."""

    def answer(self, answer: Answer) -> None:
        """Take the first response."""
        if not self._future.done():
            self._future.set_result(answer)

    def give_up(self) -> None:
        """Respond in place of a client that has disconnected."""
        self.answer(jsonrpc.failure(jsonrpc.INTERNAL_ERROR, "The client has left"))


@dataclass(slots=True, eq=False)
class Session:
    """One client. `outbox` holds the newest messages of its GET stream."""

    id: str
    profile: str
    client: str
    """The client, as far as it can be identified; eviction is fair between clients."""
    budget: MemoryBudget
    token: str = ""
    """The id of the token that opened it, and that each of its requests shows; "" for none."""
    client_name: str = ""
    """What the client calls itself."""
    version: str = versions.NEWEST_HANDSHAKE
    capabilities: bytes = b"{}"
    level: int = 0
    level_was_set: bool = False
    last_seen: float = field(default_factory=time.monotonic)
    subscriptions: set[str] = field(default_factory=set)
    running: dict[Callable[[], None], bytes] = field(default_factory=dict)
    """What cancels a request → its id, which a client may give to several."""
    open_requests: dict[bytes, Question] = field(default_factory=dict)
    outbox: ReplayBuffer = field(init=False)
    legacy_outbox: Outbox | None = None
    """Extra messages for a client of 2024-11-05: responses, and requests to it."""
    event_store: EventStore | None = None
    """Streams of this session's POSTs, created with the first."""
    taken: int = 0
    """Number of the newest message that a GET stream has taken."""
    streams: int = 0
    abandon_timer: asyncio.TimerHandle | None = None
    """Fails the requests in the GET stream while there is no stream."""
    greeted: bool = False
    """Whether its client has the answer to `initialize`: lists that change earlier are not announced to it."""
    ended: bool = False
    _cancelled: dict[bytes, float] = field(default_factory=dict)
    """Requests that were cancelled before they arrived → when."""
    _asked: int = 0
    _arrived: asyncio.Event | None = None

    def __post_init__(self) -> None:
        """Create the replay buffer."""
        self.outbox = ReplayBuffer(self.budget, KEPT_EVENTS)

    @property
    def busy(self) -> bool:
        """Whether its client has a stream open or waits for a response."""
        return self.streams > 0 or bool(self.running)

    def introduce(self, params: bytes) -> None:
        """Store what the client declares in `initialize`."""
        offered = _object(params)
        self.version = versions.negotiate(offered.get("protocolVersion"))
        capabilities = offered.get("capabilities")
        self.capabilities = jsonrpc.encode(capabilities if isinstance(capabilities, dict) else {})
        self.client_name = name_of_client(offered.get("clientInfo"))

    @property
    def is_used(self) -> bool:
        """Whether its client seems to be there still: it is busy, or was lately."""
        return self.busy or time.monotonic() - self.last_seen < USED_S

    def event_stream(self, identity: bytes) -> EventStream:
        """Begin to keep the stream that responds to the POST of this request."""
        if self.event_store is None:
            self.event_store = EventStore(self.budget)
        return self.event_store.open(identity)

    def enqueue(self, message: bytes) -> None:
        """Send a message on the GET stream, or keep it until there is one."""
        if not self.ended:
            self.outbox.add(message)
            self.notify_reader()

    def enqueue_once(self, change: bytes) -> None:
        """Enqueue a notification unless the same one is waiting already."""
        if not self.outbox.holds(change, self.taken):
            self.enqueue(change)

    def notify_reader(self) -> None:
        """Wake the reader: there is a new message."""
        if self._arrived is not None:
            self._arrived.set()

    def come_back(self, last: int) -> None:
        """Continue after the last message that the client says it received."""
        self.taken = min(last, self.outbox.newest)

    def take(self) -> list[tuple[int, bytes]]:
        """Return the messages that no stream has taken; replace lost ones by notifications that cover them.

        Those come first, under the number of the last lost message.
        """
        lost, waiting = self.outbox.lost_after(self.taken), self.outbox.after(self.taken)
        missed = resync_messages(lost, self.subscriptions) if lost else []
        before, self.taken = self.taken + lost, self.outbox.newest
        return [(before, message) for message in missed] + waiting

    async def arrived(self) -> None:
        """Return when there may be a new message."""
        if self._arrived is None:
            self._arrived = asyncio.Event()
        await self._arrived.wait()
        self._arrived.clear()

    def accepts_level(self, severity: int) -> bool:
        """Return whether a message is severe enough for this client."""
        return severity >= self.level

    def add_stream(self) -> None:
        """Count one more GET stream."""
        self.streams += 1
        if self.abandon_timer is not None:
            self.abandon_timer.cancel()
            self.abandon_timer = None

    def remove_stream(self) -> None:
        """Count one less; after the last, requests sent on it get a grace period."""
        self.streams -= 1
        if not self.streams and any(question.in_stream for question in self.open_requests.values()):
            self.abandon_timer = asyncio.get_running_loop().call_later(GRACE_S, self._give_up)

    def _give_up(self) -> None:
        for question in self.open_requests.values():
            if question.in_stream:
                question.give_up()

    async def ask(
        self, method: str, params: bytes, push: Callable[[bytes], None] | None = None
    ) -> Answer:
        """Send the client a request, on its GET stream if there is no other way, and wait for its response.

        Cancelling this cancels the request. A client that disconnects counts as an error response.
        """
        if (refused := refusal(self.capabilities, method, params)) is not None:
            return refused
        self._asked += 1
        identity = b'%b%d"' % (jsonrpc.QUESTION, self._asked)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.open_requests[identity] = Question(future, in_stream=push is None)
        send = push or self.enqueue
        try:
            send(jsonrpc.request(identity, method, params))
            return await future
        except asyncio.CancelledError:
            send(
                jsonrpc.notification("notifications/cancelled", b'{"requestId":' + identity + b"}")
            )
            raise
        finally:
            self.open_requests.pop(identity, None)

    def answered(self, message: Envelope) -> None:
        """Take the client's response to one of our requests; ignore one with an unknown id."""
        if (question := self.open_requests.get(bytes(message.id))) is not None:
            question.answer(jsonrpc.answer_in(message, "client"))

    def cancel(self, params: bytes) -> None:
        """Cancel the request that a `notifications/cancelled` names; remember it if none runs (yet)."""
        identity = jsonrpc.member(params, "requestId")
        named = [stop for stop, running in self.running.items() if running == identity]
        for stop in named:
            stop()
        if identity and not named and len(identity) <= LONGEST_NAME:
            self._cancelled[identity] = time.monotonic()
            if len(self._cancelled) > MOST_REMEMBERED:
                del self._cancelled[next(iter(self._cancelled))]

    def was_cancelled(self, identity: bytes) -> bool:
        """Return whether a cancellation that has just arrived is for this request; it counts once."""
        cancelled = self._cancelled.pop(identity, None) if self._cancelled else None
        return cancelled is not None and time.monotonic() - cancelled < REMEMBERED_S

    def end(self) -> None:
        """Cancel this client's running requests, and end its stream."""
        self.ended = True
        self.outbox.close()
        if self.event_store is not None:
            self.event_store.close()
        if self.legacy_outbox is not None:
            self.legacy_outbox.close()
        self.notify_reader()
        for stop in list(self.running):
            stop()
        for question in self.open_requests.values():
            question.give_up()
        if self.abandon_timer is not None:
            self.abandon_timer.cancel()


class SessionTable:
    """Evicts sessions fairly when there are too many, so that no client can flood out another.

    Each session beyond the limit evicts the oldest idle one of the client with the most sessions.
    Sessions that were opened and never used have a separate part of the table, so that they cannot
    evict used ones, whatever names their clients give themselves. Every operation takes constant time.
    """

    def __init__(self, most: int = MOST_SESSIONS, most_unused: int = MOST_UNUSED) -> None:
        self._most, self._most_unused = most, most_unused
        self._unused = _ByClient()
        self._used = _ByClient()

    def add(self, session: Session) -> Session | None:
        """Add a new session; return the idle one that is evicted for it."""
        too_many = len(self._unused) >= self._most_unused
        full = len(self._unused) + len(self._used) >= self._most
        leaving = self._unused.oldest() if too_many else self._used.oldest() if full else None
        self._unused.add(session)
        return leaving

    def used(self, session: Session) -> None:
        """Record a request in this session."""
        if self._unused.discard(session):
            self._used.add(session)
        else:
            self._used.touch(session)

    def discard(self, session: Session) -> None:
        """Remove a session that has ended."""
        if not self._unused.discard(session):
            self._used.discard(session)


class _ByClient:
    """Sessions by client, least recently used first; and the client with the most of them."""

    def __init__(self) -> None:
        self._sessions: dict[str, OrderedDict[str, Session]] = {}
        self._clients: dict[int, dict[str, None]] = {}
        """Number of sessions → the clients that have that many."""
        self._most = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, session: Session) -> None:
        sessions = self._sessions.setdefault(session.client, OrderedDict())
        sessions[session.id] = session
        self._counted(session.client, len(sessions) - 1, len(sessions))
        self._count += 1

    def touch(self, session: Session) -> None:
        self._sessions[session.client].move_to_end(session.id)

    def discard(self, session: Session) -> bool:
        """Remove a session; return whether it was there."""
        sessions = self._sessions.get(session.client)
        if sessions is None or sessions.pop(session.id, None) is None:
            return False
        if not sessions:
            del self._sessions[session.client]
        self._counted(session.client, len(sessions) + 1, len(sessions))
        self._count -= 1
        return True

    def oldest(self) -> Session | None:
        """Return the oldest idle session of the client with the most; None while all are busy."""
        if not self._most:
            return None
        sessions = self._sessions[next(iter(self._clients[self._most]))]
        for _ in range(min(MOST_BUSY, len(sessions))):
            session = next(iter(sessions.values()))
            if not session.busy:
                return session
            sessions.move_to_end(session.id)
        return None

    def _counted(self, client: str, before: int, after: int) -> None:
        if before:
            del self._clients[before][client]
            if not self._clients[before]:
                del self._clients[before]
        if after:
            self._clients.setdefault(after, {})[client] = None
        if after > self._most or self._most not in self._clients:
            self._most = after  # the count changed by one, so this client has the most


class Sessions:
    """All sessions by id. An idle one is evicted when there are too many, see `SessionTable`."""

    def __init__(self, left: Callable[[Session], None]) -> None:
        self._left = left
        self._sessions: dict[str, Session] = {}
        self._table = SessionTable()
        self._budget = MemoryBudget()
        self._looked = time.monotonic()

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(tuple(self._sessions.values()))

    def open(self, profile: str, params: bytes, sender: str, token: str = "") -> Session:
        """Open the session of a client that sent `initialize`; `sender` identifies the client."""
        client = f"{token} {sender} {_object(_object(params).get('clientInfo')).get('name')}"
        session = Session(secrets.token_hex(16), profile, client, self._budget, token)
        session.introduce(params)
        self._sessions[session.id] = session
        if (leaving := self._table.add(session)) is not None:
            self.close(leaving)
        if time.monotonic() - self._looked > LOOK_S:
            self._looked = time.monotonic()
            self._forget_idle()
        return session

    def find(self, identity: str, profile: str, token: str = "") -> Session | None:
        """Return the session of that id, if it belongs to that profile and to that token."""
        session = self._sessions.get(identity)
        if session is None or session.profile != profile or session.token != token:
            return None
        session.last_seen = time.monotonic()
        self._table.used(session)
        return session

    def of_stream(self, identity: str, token: str = "") -> Session | None:
        """Return the session of that id and token, whatever its profile: a legacy client posts to it."""
        session = self._sessions.get(identity)
        return None if session is None or session.token != token else session

    def least_level(self, profiles: Container[str]) -> str | None:
        """Return the lowest level that a client of these profiles has set, or None."""
        levels = [s.level for s in self if s.level_was_set and s.profile in profiles]
        return LEVELS[min(levels)] if levels else None

    def close(self, session: Session) -> None:
        """Close a session at its client's request."""
        if self._sessions.pop(session.id, None) is not None:
            self._table.discard(session)
            session.end()
            self._left(session)

    def _forget_idle(self) -> None:
        """Close sessions that were unused for a day."""
        limit = time.monotonic() - IDLE_S
        for session in self:
            if session.last_seen < limit and not session.busy:
                self.close(session)


def _object(value: object) -> dict[str, object]:
    """Return a JSON object, decoded or not; an empty one for anything else. Raises MALFORMED."""
    if isinstance(value, bytes):
        value = decode_any(value) if value else {}
    return value if isinstance(value, dict) else {}
