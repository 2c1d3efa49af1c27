"""The answer to one POST: a JSON body, or a stream of events as soon as something precedes it.

Nothing is sent until it is decided. The common case (an answer and nothing before it) is one JSON
response without a task of its own. The first message that comes before the answer, or
`keepalive_s` of silence, commits to a stream; from then on a writer task sends what `queue` holds.
A client that leaves is noticed by a watcher, which starts late so that quick calls do not pay for it.
It cancels the call, unless a stream had begun that the client may come back to (`EventStream`).
An answer that is too large to be held is relayed, in either form, as fast as the client reads it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.gateway.clients.event_store import warning
from local_mcp_gateway.gateway.clients.sessions import LEVELS, Session, severity_of
from local_mcp_gateway.gateway.http.request import JSON_HEADER
from local_mcp_gateway.gateway.protocol import jsonrpc, sse
from local_mcp_gateway.gateway.protocol.jsonrpc import Answer, failure, response
from local_mcp_gateway.gateway.tasks import TaskScope
from local_mcp_gateway.gateway.timers import Timer

if TYPE_CHECKING:
    from collections.abc import Callable

    from local_mcp_gateway.gateway.clients.event_store import EventStream
    from local_mcp_gateway.gateway.http.request import HttpRequest
    from local_mcp_gateway.gateway.timers import TimerWheel
    from local_mcp_gateway.gateway.upstreams.large_responses import StreamedResponse

MOST_WAITING_BYTES: Final = 8 * 1024 * 1024
"""How much waits for a client before notifications for it are let go, and counted."""
WATCH_AFTER_S: Final = 0.25
PRIMED_SINCE: Final = "2025-11-25"
"""The first revision whose clients take an empty event that only has an id."""
STREAM_HEADERS: Final = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


class PostResponse(Timer):
    """One POST in progress; it is the `Caller` of the call that it makes.

    As an alarm it rings when the call is no quick one: to watch whether the client is still there, then
    after `keepalive_s` of silence.
    """

    left = False
    _replay: EventStream | None = None
    _relaying = False
    _waiting_bytes = 0
    _lost = 0
    _queue: asyncio.Queue[bytes | None] | None = None
    _writer: asyncio.Future[None] | None = None
    _watcher: asyncio.Future[None] | None = None

    def __init__(
        self,
        visit: HttpRequest,
        identity: bytes,
        *,
        session: Session | None,
        capabilities: bytes,
        log_level: str | None,
        keepalive_s: float,
        alarms: TimerWheel,
        failed: Callable[[Exception], None],
    ) -> None:
        self.tasks = TaskScope(failed)
        """What writes and watches the response. Entered by whoever runs the call."""
        self.capabilities = capabilities
        task = asyncio.current_task()
        assert task is not None, "an ASGI server runs each request in a task"
        self.task = task
        self._visit = visit
        self.identity = identity
        self._session = session
        self._log_level = log_level
        self._streams = visit.streams
        self._keepalive_s = keepalive_s
        self._alarms = alarms
        alarms.set(self, WATCH_AFTER_S)

    @property
    def log_level(self) -> str | None:
        """Return the least severe level of log messages that the client wants."""
        return self._log_level if self._session is None else LEVELS[self._session.level]

    @property
    def client(self) -> object:
        """Return the client's session; without one, no other call is known to be of the same client."""
        return self._session or self

    def notified(self, method: str, params: bytes) -> None:
        """Send a notification before the answer, or to the session's own stream if this cannot."""
        if not self._wanted(method, params):
            return
        if self._waiting_bytes > MOST_WAITING_BYTES:
            self._lost += 1  # the client does not read: what is only news is lost to it
            return
        message = jsonrpc.notification(method, params)
        if self._streams:
            self.push(message)
        elif self._session is not None:
            self._session.offer(message)

    async def asked(self, method: str, params: bytes) -> Answer:
        """Ask the client something while its call runs."""
        if self._session is None:
            return failure(jsonrpc.METHOD_NOT_FOUND, f"This client cannot be asked {method}")
        return await self._session.ask(method, params, self.push if self._streams else None)

    def push(self, message: bytes) -> None:
        """Send a message before the answer; commits to a stream."""
        if self._relaying:
            return  # the answer is on its way, and nothing comes after it
        self._commit()
        assert self._queue is not None, "committed"
        event = self._event(message)
        self._waiting_bytes += len(event)
        self._queue.put_nowait(event)

    async def relay(self, large: StreamedResponse) -> int:
        """Send an answer as it comes; return its size. It is not kept for who comes back.

        If it breaks off, so does the response: then `finish` has nothing more to say.
        """
        self._relaying = True
        self._alarms.unset(self)
        if self._watcher is None:
            self._watcher = self.tasks.start(self._until_left)
        size = 0
        if self._queue is None:
            headers = [JSON_HEADER, *self._visit.extra]
            await self._visit.send(
                {"type": "http.response.start", "status": 200, "headers": headers}
            )
        else:
            self._queue.put_nowait(self._opening())
        async for part in large.parts(self.identity):
            size += len(part)
            await self._pass(part)
        await self._passed()
        return size

    def cancel(self) -> None:
        """Cancel the call: its client wants no answer any more."""
        self.task.cancel()

    async def finish(self, body: bytes, status: int = 200) -> None:
        """Send the answer and end the exchange."""
        self._stop_watching()
        if self._relaying:
            self.abandon()
            return
        if self._queue is None:
            await self._visit.reply(status, body)
            return
        if self._lost:
            self._queue.put_nowait(self._event(warning(self._lost)))
        self._queue.put_nowait(self._event(body))
        self._queue.put_nowait(None)
        if self._replay is not None:
            self._replay.end()
        assert self._writer is not None, "committed"
        await self._writer

    def abandon(self) -> None:
        """End without an answer: nobody is there to read it."""
        self._stop_watching()
        if self._replay is not None:
            self._replay.end()

    def _wanted(self, method: str, params: bytes) -> bool:
        if method != "notifications/message":
            return True
        level = self.log_level
        return level in LEVELS and severity_of(method, params) >= LEVELS.index(level)

    def _opening(self) -> bytes:
        """Begin the event of a large answer; who comes back for it later is told that it is gone."""
        if self._replay is None:
            return sse.opening()
        text = "The answer was too large to be kept for a client that comes back: ask again"
        gone = response(self.identity, failure(jsonrpc.INTERNAL_ERROR, text))
        return sse.opening(self._replay.keep(gone))

    async def _pass(self, part: bytes) -> None:
        if self._queue is None:
            await self._visit.send({"type": "http.response.body", "body": part, "more_body": True})
        else:
            self._queue.put_nowait(sse.continued(part))
            await self._queue.join()

    async def _passed(self) -> None:
        self._stop_watching()  # a response that is complete looks like a client that has left
        if self._queue is None:
            await self._visit.send({"type": "http.response.body", "body": b""})
        else:
            assert self._writer is not None, "committed"
            self._queue.put_nowait(sse.END)
            self._queue.put_nowait(None)
            await self._writer

    def _commit(self) -> None:
        if self._queue is None:
            self._queue = asyncio.Queue()
            if self._session is not None:
                self._replay = self._session.replay(self.identity)
                if self._session.version >= PRIMED_SINCE:
                    self._queue.put_nowait(self._replay.priming())
            self._writer = self.tasks.start(self._write, self._queue)

    async def _write(self, queue: asyncio.Queue[bytes | None]) -> None:
        send = self._visit.send
        headers = [*STREAM_HEADERS, *self._visit.extra]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        while True:
            try:
                async with asyncio.timeout(None if self._relaying else self._keepalive_s):
                    chunk = await queue.get()
            except TimeoutError:
                if not self._relaying:
                    await send(
                        {"type": "http.response.body", "body": sse.KEEPALIVE, "more_body": True}
                    )
                continue
            last = chunk is None
            await send({"type": "http.response.body", "body": chunk or b"", "more_body": not last})
            queue.task_done()
            self._waiting_bytes = 0 if queue.empty() else self._waiting_bytes - len(chunk or b"")
            if last:
                return

    def ring(self) -> None:
        """Begin to watch the client, or commit to a stream, which is kept alive."""
        if self._watcher is not None:
            self._commit()
            return
        self._watcher = self.tasks.start(self._until_left)
        if self._streams:
            self._alarms.set(self, self._keepalive_s)

    async def _until_left(self) -> None:
        while (await self._visit.receive())["type"] != "http.disconnect":
            pass
        if self._replay is not None and not self._relaying:
            self._replay.left(self._give_up)
        else:
            self._give_up()

    def _give_up(self) -> None:
        self.left = True
        self.cancel()

    def _event(self, message: bytes) -> bytes:
        return sse.render(message) if self._replay is None else self._replay.add(message)

    def _stop_watching(self) -> None:
        self._alarms.unset(self)
        watcher, self._watcher = self._watcher, None  # which would hold us by what cancelled it
        if watcher is not None:
            watcher.cancel()
