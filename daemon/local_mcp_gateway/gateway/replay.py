"""What a stream of events has sent, kept for a client whose connection broke (Last-Event-ID).

Each POST of a session that is answered with a stream has one. While its client is away, its call goes
on for `GRACE_S`; a client that comes back in that time gets what it missed, and the rest as it comes.
As long after its end, a stream is forgotten.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from local_mcp_gateway.gateway import sse
from local_mcp_gateway.gateway.envelope import number_of

GRACE_S: Final = 30.0
RETRY_MS: Final = 500
"""How long a client whose stream broke is asked to wait before it comes back."""
KEPT_EVENTS: Final = 1000
KEPT_BYTES: Final = 8 * 1024 * 1024
"""How much one session's streams keep together; what was sent first goes first."""
KEPT_STREAMS: Final = 16
"""Streams of one session that are kept; the oldest goes first."""


class Replay:
    """One stream: its events as they were sent, numbered, and whether it has ended."""

    def __init__(self, name: str, forget: Callable[[], object]) -> None:
        self.name = name
        self.ended = False
        self.bytes = 0
        self._forget = forget
        self._events: deque[tuple[int, bytes]] = deque()
        self._numbered = 0
        self._arrived = asyncio.Event()
        self._giving_up: asyncio.TimerHandle | None = None
        self._give_up: Callable[[], None] | None = None

    def add(self, message: bytes) -> bytes:
        """Keep a message under the next number and return it as an event."""
        self.keep(message)
        return self._events[-1][1]

    def keep(self, message: bytes) -> str:
        """Keep a message under the next number without sending it; return its id."""
        self._numbered += 1
        identity = f"{self.name}.{self._numbered}"
        event = sse.render(message, identity=identity)
        if len(self._events) == KEPT_EVENTS:
            self.drop_oldest()
        self._events.append((self._numbered, event))
        self.bytes += len(event)
        while self.bytes > KEPT_BYTES and len(self._events) > 1:
            self.drop_oldest()
        self._arrived.set()
        return identity

    def drop_oldest(self) -> None:
        """Forget the event that was sent first."""
        self.bytes -= len(self._events.popleft()[1])

    def priming(self) -> bytes:
        """Return the empty event that gives a client an id to come back with (2025-11-25)."""
        return f"id: {self.name}.0\r\nretry: {RETRY_MS}\r\ndata: \r\n\r\n".encode()

    def end(self) -> None:
        """Say that nothing more will come."""
        if not self.ended:
            asyncio.get_running_loop().call_later(GRACE_S, self._forget)
        self.ended = True
        self._arrived.set()
        if self._giving_up is not None:
            self._giving_up.cancel()

    def left(self, give_up: Callable[[], None]) -> None:
        """Begin to wait for the client; `give_up` is called when it does not come back."""
        self._give_up = give_up
        if not self.ended:
            self._giving_up = asyncio.get_running_loop().call_later(GRACE_S, give_up)

    def came_back(self) -> None:
        """Stop waiting: the client reads again."""
        if self._giving_up is not None:
            self._giving_up.cancel()

    def left_again(self) -> None:
        """Begin to wait once more."""
        if self._give_up is not None:
            self.left(self._give_up)

    async def after(self, number: int) -> tuple[int, bytes] | None:
        """Return the events after `number`, when there are any; None when the stream has ended."""
        while True:
            waiting = [(n, event) for n, event in self._events if n > number]
            if waiting:
                return waiting[-1][0], b"".join(event for _, event in waiting)
            if self.ended:
                return None
            self._arrived.clear()
            await self._arrived.wait()


class Replays:
    """The streams of one session, by name."""

    def __init__(self) -> None:
        self._kept: dict[str, Replay] = {}
        self._named = 0

    def open(self) -> Replay:
        """Begin to keep a stream."""
        self._named += 1
        name = f"p{self._named}"
        replay = Replay(name, lambda: self._kept.pop(name, None))
        self._kept[name] = replay
        while len(self._kept) > KEPT_STREAMS or (self.bytes > KEPT_BYTES and len(self._kept) > 1):
            self._kept.pop(next(iter(self._kept)))
        return replay

    @property
    def bytes(self) -> int:
        """Return how much is kept."""
        return sum(replay.bytes for replay in self._kept.values())

    def find(self, event_id: str) -> tuple[Replay, int] | None:
        """Return the stream that an event's id belongs to, and the event's number."""
        name, _, number = event_id.partition(".")
        replay = self._kept.get(name)
        at = number_of(number.encode())
        return (
            (replay, at) if replay is not None and number.isascii() and number.isdigit() else None
        )
