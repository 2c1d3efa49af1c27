"""What a stream of events has sent, kept for a client whose connection broke (Last-Event-ID).

Each POST of a session that is answered with a stream has one. While its client is away, its call goes
on for `GRACE_S`; a client that comes back in that time gets what it missed, and the rest as it comes.
As long after its end, a stream is forgotten. Events that were too much to be kept are told as missed;
where the answer is among them, an error says so in its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from local_mcp_gateway.gateway.clients.backlog import Backlog, Budget
from local_mcp_gateway.gateway.clients.missed import warning
from local_mcp_gateway.gateway.protocol import envelope, sse

GRACE_S: Final = 30.0
RETRY_MS: Final = 500
"""How long a client whose stream broke is asked to wait before it comes back."""
KEPT_EVENTS: Final = 1000
KEPT_STREAMS: Final = 256
"""Streams of one session that are known; of those that have ended, then of all, the oldest goes first."""
GONE: Final = "The answer is not kept any more for a client that comes back: ask again"


class Replay:
    """One stream: its events as they were sent, numbered, and whether it has ended."""

    def __init__(
        self, name: str, identity: bytes, budget: Budget, forget: Callable[[], object]
    ) -> None:
        self.name = name
        self.ended = False
        self.backlog = Backlog(budget, KEPT_EVENTS)
        self._identity = identity
        self._forget = forget
        self._arrived = asyncio.Event()
        self._giving_up: asyncio.TimerHandle | None = None
        self._give_up: Callable[[], None] | None = None
        self._readers = 0

    def add(self, message: bytes) -> bytes:
        """Keep a message under the next number and return it as an event."""
        event = sse.render(message, identity=f"{self.name}.{self.backlog.newest + 1}")
        self.backlog.add(event)
        self._arrived.set()
        return event

    def keep(self, message: bytes) -> str:
        """Keep a message under the next number without sending it; return its id."""
        self.add(message)
        return f"{self.name}.{self.backlog.newest}"

    def priming(self) -> bytes:
        """Return the empty event that gives a client an id to come back with (2025-11-25)."""
        return f"id: {self.name}.0\r\nretry: {RETRY_MS}\r\ndata: \r\n\r\n".encode()

    def end(self) -> None:
        """Say that nothing more will come."""
        if not self.ended:
            asyncio.get_running_loop().call_later(GRACE_S, self._forget)
        self.ended, self._give_up = True, None
        self._arrived.set()
        if self._giving_up is not None:
            self._giving_up.cancel()

    def left(self, give_up: Callable[[], None]) -> None:
        """Begin to wait for the client; `give_up` is called when it does not come back."""
        self._give_up = give_up
        self._wait()

    def came_back(self) -> None:
        """Stop waiting: the client reads again, perhaps before it is noticed that it had left."""
        self._readers += 1
        if self._giving_up is not None:
            self._giving_up.cancel()

    def left_again(self) -> None:
        """Begin to wait once more."""
        self._readers -= 1
        self._wait()

    def _wait(self) -> None:
        if self._give_up is not None and not self._readers and not self.ended:
            self._giving_up = asyncio.get_running_loop().call_later(GRACE_S, self._give_up)

    async def after(self, number: int) -> tuple[int, bytes] | None:
        """Return the events after `number`, when there are any; None when the stream has ended."""
        while True:
            newest, lost = self.backlog.newest, self.backlog.lost_after(number)
            if waiting := self.backlog.after(number):
                said = [sse.render(warning(lost))] if lost else []
                return newest, b"".join(said + [event for _, event in waiting])
            if self.ended:
                return (newest, self._gone(newest)) if lost else None
            self._arrived.clear()
            await self._arrived.wait()

    def _gone(self, number: int) -> bytes:
        answer = envelope.failure(envelope.INTERNAL_ERROR, GONE)
        body = envelope.response(self._identity, answer)
        return sse.render(body, identity=f"{self.name}.{number}")


class Replays:
    """The streams of one session, by name."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._kept: dict[str, Replay] = {}
        self._named = 0

    def open(self, identity: bytes) -> Replay:
        """Begin to keep the stream that answers this request."""
        self._named += 1
        name = f"p{self._named}"
        replay = Replay(name, identity, self._budget, lambda: self._drop(name))
        self._kept[name] = replay
        if len(self._kept) > KEPT_STREAMS:
            ended = (known for known, each in self._kept.items() if each.ended)
            self._drop(next(ended, next(iter(self._kept))))
        return replay

    def close(self) -> None:
        """Forget all: the session has ended."""
        for name in tuple(self._kept):
            self._drop(name)

    def _drop(self, name: str) -> None:
        if (replay := self._kept.pop(name, None)) is not None:
            replay.backlog.close()

    def find(self, event_id: str) -> tuple[Replay, int] | None:
        """Return the stream that an event's id belongs to, and the event's number."""
        name, _, number = event_id.partition(".")
        replay = self._kept.get(name)
        if replay is None or not (number.isascii() and number.isdigit()):
            return None
        return replay, envelope.number_of(number.encode())


def is_of_stream(event_id: str) -> bool:
    """Whether an id looks as those of `Replay` do."""
    return event_id.startswith("p") and "." in event_id
