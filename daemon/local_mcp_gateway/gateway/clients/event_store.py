"""Keep sent events so that a client can resume a broken stream (Last-Event-ID).

Each POST of a session that has a streamed response has one. While its client is away, its call runs on
for `GRACE_S`; a client that reconnects in that time gets what it missed, and the rest as it arrives.
The stream is forgotten that long after its end. Events that were too large to keep are reported as
missed; if the response is among them, an error takes its place.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

from local_mcp_gateway.formats import counted
from local_mcp_gateway.gateway.protocol import encode, jsonrpc, notification, sse

KEPT_BYTES: Final = 16 * 1024 * 1024
"""How many bytes are kept for all clients together."""


class MemoryBudget:
    """The bytes that all replay buffers hold together, and their limit.

    Buffers are grouped by the bit length of their sizes, and one of the largest group drops messages.
    So a message costs the same with ten thousand clients as with ten.
    """

    def __init__(self, most_bytes: int = KEPT_BYTES) -> None:
        self.bytes = 0
        self._most_bytes = most_bytes
        self._sizes: list[dict[ReplayBuffer, None]] = [{} for _ in range(64)]

    def change(self, buffer: ReplayBuffer, size: int) -> None:
        """Update the size of one buffer."""
        self.bytes += size
        before, now = (buffer.bytes - size).bit_length(), buffer.bytes.bit_length()
        if before != now:
            self._sizes[before].pop(buffer, None)
            if now:
                self._sizes[now][buffer] = None

    def make_room(self) -> None:
        """Drop from the largest buffers until the total is within the limit."""
        while self.bytes > self._most_bytes:
            largest = next(backlogs for backlogs in reversed(self._sizes) if backlogs)
            next(iter(largest)).drop_oldest()


class ReplayBuffer:
    """The newest messages of one stream, numbered from 1."""

    __slots__ = ("_budget", "_kept", "_most", "bytes", "newest")

    def __init__(self, budget: MemoryBudget, most: int) -> None:
        self.newest = 0
        """Number of the newest message, kept or not."""
        self.bytes = 0
        self._budget = budget
        self._most = most
        self._kept: deque[bytes] = deque()

    def add(self, message: bytes) -> int:
        """Keep a message and return its number; drop the oldest ones beyond the limit."""
        self.newest += 1
        self._kept.append(message)
        self.bytes += len(message)
        self._budget.change(self, len(message))
        self._budget.make_room()
        if len(self._kept) > self._most:
            self.drop_oldest()
        return self.newest

    def after(self, number: int) -> list[tuple[int, bytes]]:
        """Return the kept messages that came after that number."""
        first = self.newest - len(self._kept) + 1
        return [(at, body) for at, body in enumerate(self._kept, first) if at > number]

    def holds(self, message: bytes, number: int) -> bool:
        """Return whether the same message is among those that came after that number."""
        newer = islice(reversed(self._kept), max(0, self.newest - number))
        return any(body == message for body in newer)

    def lost_after(self, number: int) -> int:
        """Return how many messages after that number were dropped."""
        return max(0, self.newest - len(self._kept) - number)

    def drop_oldest(self) -> None:
        """Drop the oldest message."""
        size = len(self._kept.popleft())
        self.bytes -= size
        self._budget.change(self, -size)

    def forget(self, number: int) -> None:
        """Forget the messages up to that number: their client has received them."""
        while self._kept and self.newest - len(self._kept) < number:
            self.drop_oldest()

    def close(self) -> None:
        """Drop everything and keep nothing more: the client has left."""
        self._most = 0
        self.forget(self.newest)


LIST_CHANGES: Final = (
    "notifications/tools/list_changed",
    "notifications/prompts/list_changed",
    "notifications/resources/list_changed",
)


def missed_warning(lost: int) -> bytes:
    """Return the log message about missed messages."""
    missed = counted(lost, "message")
    data = f"{missed} could not be kept for you: you read too slowly, or came back too late"
    params = {"level": "warning", "logger": "local-mcp-gateway", "data": data}
    return notification("notifications/message", encode(params))


def resync_messages(lost: int, watched: Iterable[str]) -> list[bytes]:
    """Return notifications that repeat everything a client may have missed in its GET stream."""
    changes = [notification(method) for method in LIST_CHANGES]
    updates = [
        notification("notifications/resources/updated", encode({"uri": uri})) for uri in watched
    ]
    return [missed_warning(lost), *changes, *updates]


GRACE_S: Final = 30.0
RETRY_MS: Final = 500
"""The reconnect delay that is sent to clients."""
KEPT_EVENTS: Final = 1000
KEPT_STREAMS: Final = 256
"""Maximum streams of one session; ended ones are dropped first, then the oldest."""
GONE: Final = "The response was dropped before the reconnect: send the request again"


class EventStream:
    """One stream: its events as they were sent, numbered, and whether it has ended."""

    def __init__(
        self, name: str, identity: bytes, budget: MemoryBudget, forget: Callable[[], object]
    ) -> None:
        self.name = name
        self.ended = False
        self.buffer = ReplayBuffer(budget, KEPT_EVENTS)
        self._identity = identity
        self._forget = forget
        self._arrived = asyncio.Event()
        self._giving_up: asyncio.TimerHandle | None = None
        self._give_up: Callable[[], None] | None = None
        self._readers = 0

    def add(self, message: bytes) -> bytes:
        """Keep a message under the next number and return it as an event."""
        event = sse.render(message, identity=f"{self.name}.{self.buffer.newest + 1}")
        self.buffer.add(event)
        self._arrived.set()
        return event

    def keep(self, message: bytes) -> str:
        """Keep a message under the next number without sending it; return its id."""
        self.add(message)
        return f"{self.name}.{self.buffer.newest}"

    def priming(self) -> bytes:
        """Return the empty event that gives a client an id to resume with (2025-11-25)."""
        return f"id: {self.name}.0\r\nretry: {RETRY_MS}\r\ndata: \r\n\r\n".encode()

    def end(self) -> None:
        """Mark the stream as complete."""
        if not self.ended:
            asyncio.get_running_loop().call_later(GRACE_S, self._forget)
        self.ended, self._give_up = True, None
        self._arrived.set()
        if self._giving_up is not None:
            self._giving_up.cancel()

    def on_disconnect(self, give_up: Callable[[], None]) -> None:
        """Start waiting for the client; `give_up` is called when it does not reconnect."""
        self._give_up = give_up
        self._wait()

    def on_reconnect(self) -> None:
        """Stop waiting: the client has reconnected, perhaps before its disconnect was noticed."""
        self._readers += 1
        if self._giving_up is not None:
            self._giving_up.cancel()

    def on_reader_left(self) -> None:
        """Start waiting again."""
        self._readers -= 1
        self._wait()

    def _wait(self) -> None:
        if self._give_up is not None and not self._readers and not self.ended:
            self._giving_up = asyncio.get_running_loop().call_later(GRACE_S, self._give_up)

    async def after(self, number: int) -> tuple[int, bytes] | None:
        """Return the events after `number`, when there are any; None when the stream has ended."""
        while True:
            newest, lost = self.buffer.newest, self.buffer.lost_after(number)
            if waiting := self.buffer.after(number):
                said = [sse.render(missed_warning(lost))] if lost else []
                return newest, b"".join(said + [event for _, event in waiting])
            if self.ended:
                return (newest, self._gone(newest)) if lost else None
            self._arrived.clear()
            await self._arrived.wait()

    def _gone(self, number: int) -> bytes:
        answer = jsonrpc.failure(jsonrpc.INTERNAL_ERROR, GONE)
        body = jsonrpc.response(self._identity, answer)
        return sse.render(body, identity=f"{self.name}.{number}")


class EventStore:
    """The streams of one session, by name."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._kept: dict[str, EventStream] = {}
        self._named = 0

    def open(self, identity: bytes) -> EventStream:
        """Begin to keep the stream that responds to this request."""
        self._named += 1
        name = f"p{self._named}"
        event_stream = EventStream(name, identity, self._budget, lambda: self._drop(name))
        self._kept[name] = event_stream
        if len(self._kept) > KEPT_STREAMS:
            ended = (known for known, each in self._kept.items() if each.ended)
            self._drop(next(ended, next(iter(self._kept))))
        return event_stream

    def close(self) -> None:
        """Forget all: the session has ended."""
        for name in tuple(self._kept):
            self._drop(name)

    def _drop(self, name: str) -> None:
        if (event_stream := self._kept.pop(name, None)) is not None:
            event_stream.buffer.close()

    def find(self, event_id: str) -> tuple[EventStream, int] | None:
        """Return the stream that an event's id belongs to, and the event's number."""
        name, _, number = event_id.partition(".")
        event_stream = self._kept.get(name)
        if event_stream is None or not (number.isascii() and number.isdigit()):
            return None
        return event_stream, jsonrpc.number_of(number.encode())


def is_of_stream(event_id: str) -> bool:
    """Return whether an id has the format of `EventStream` ids."""
    return event_id.startswith("p") and "." in event_id


class Outbox:
    """Messages that wait for a client of 2024-11-05, oldest first: it cannot resume."""

    def __init__(
        self, most_bytes: int, notify_reader: Callable[[], None], cut_off: Callable[[], None]
    ) -> None:
        self._most_bytes = most_bytes
        self._notify_reader = notify_reader
        self._cut_off = cut_off
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._closed = False

    def put(self, message: bytes) -> None:
        """Enqueue a message; a single one may be of any size."""
        if self._closed:
            return
        if self._waiting and self._bytes + len(message) > self._most_bytes:
            self.close()
            self._cut_off()
        else:
            self._waiting.append(message)
            self._bytes += len(message)
            self._notify_reader()

    def take(self) -> list[bytes]:
        """Return the queued messages, for the client."""
        taken = list(self._waiting)
        self._waiting.clear()
        self._bytes = 0
        return taken

    def close(self) -> None:
        """Drop the queued messages, and all later ones."""
        self.take()
        self._closed = True
