"""Connect to a stdio server: one child process shared by many clients, one message a line.

The child runs in its own process group and is ended as a tree. The connection is lost when the child
closes its stdout; every waiting call then fails at once, with the last stderr output. A server that
speaks both protocols gets a second child for stateless clients.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

import msgspec

from local_mcp_gateway.gateway.protocol import Answer, decode_target, encode, printable, versions
from local_mcp_gateway.gateway.upstreams.connection import (
    SILENT,
    Call,
    Events,
    UpstreamDisconnected,
)
from local_mcp_gateway.gateway.upstreams.handshake import identity_of_discover
from local_mcp_gateway.gateway.upstreams.large_responses import END_BYTES, LineEnds
from local_mcp_gateway.gateway.upstreams.mux import Mux
from local_mcp_gateway.gateway.upstreams.process import OrphanReaper, Output, spawn
from local_mcp_gateway.log import beginning

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator
    from typing import Self

    from local_mcp_gateway.store import ServerDefinition


CHUNK_BYTES: Final = 256 * 1024
REST_S: Final = 0.2
"""How long to wait for the last output of a child that has exited."""
KEPT_LINES: Final = 20
"""How many lines of stderr are kept, to explain why a child has exited."""
SHOWN: Final = 4096
"""How much of a stderr line is shown in an error, a log line or the health report."""


class LineReader:
    """Splits chunks into lines. A line beyond the limit is dropped, except for its two ends.

    `overflowed` holds the ends of each such line that the last `feed` completed.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.overflowed: list[LineEnds] = []
        self._limit = limit_bytes
        self._parts: list[bytes] = []
        self._bytes = 0
        self._head: bytes | None = None

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the lines that this chunk completes, without their line ends."""
        self.overflowed = []
        *complete, rest = chunk.split(b"\n")
        for part in complete:
            if not self._parts and len(part) <= self._limit:
                yield part.removesuffix(b"\r")
                continue
            self._keep(part)
            head, line = self._head, b"".join(self._parts)
            self._parts, self._bytes, self._head = [], 0, None
            if head is None:
                yield line.removesuffix(b"\r")
            else:
                self.overflowed.append(LineEnds(head, line[-END_BYTES:]))
        if rest:
            self._keep(rest)

    def _keep(self, part: bytes) -> None:
        self._parts.append(part)
        self._bytes += len(part)
        if self._head is not None:
            self._parts = [b"".join(self._parts)[-END_BYTES:]]
        elif self._bytes > self._limit:
            whole = b"".join(self._parts)
            self._head, self._parts = whole[:END_BYTES], [whole[-END_BYTES:]]


class StdioConnection(Mux):
    """A running child. `async with StdioConnection.open(…)` begins once the handshake is complete."""

    def __init__(
        self,
        definition: ServerDefinition,
        events: Events,
        reaper: OrphanReaper,
        max_message_bytes: int,
    ) -> None:
        super().__init__(events, max_message_bytes)
        self._definition = definition
        self._reaper = reaper
        self._stdout, self._stderr = LineReader(max_message_bytes), LineReader(CHUNK_BYTES)
        self._stderr_ended = asyncio.Event()
        self._last_lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._outgoing: list[bytes] = []

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        definition: ServerDefinition,
        events: Events,
        reaper: OrphanReaper,
        *,
        max_message_bytes: int,
    ) -> AsyncIterator[Self]:
        """Start the child and perform the handshake; on exit its whole process tree has ended."""
        connection = cls(definition, events, reaper, max_message_bytes)
        async with connection.tasks:
            await connection._spawn()
            try:
                reaper.watch(connection.pid)
                await connection.handshake()
                yield connection
            finally:
                await connection._end()

    async def _spawn(self) -> None:
        self._process = spawn(self._definition)
        await self._process.connect(
            stdout=Output(self._read_stdout, lambda: self._closed("it closed its output")),
            stderr=Output(self._read_stderr, self._stderr_ended.set),
            stdin_closed=lambda: self._closed("it closed its input"),
        )
        self.pid = self._process.pid
        self._events.started(self.pid)
        self.tasks.start(self._watch)

    async def send(self, message: bytes) -> None:
        """Write one message; pretty-printed JSON is joined into one line first.

        Lines of one event-loop iteration are written with one system call at its end. A child that does
        not read blocks the callers that have more for it.
        """
        if b"\n" in message or b"\r" in message:
            message = msgspec.json.format(message, indent=-1)
        if not self._process.reads:
            raise UpstreamDisconnected(await self.wait_closed(), unsent=True)
        if self._process.is_full:
            await self._process.room()
        if not self._outgoing:
            asyncio.get_running_loop().call_soon(self._write)
        self._outgoing.append(message)

    def _write(self) -> None:
        lines, self._outgoing = self._outgoing, []
        self._process.write(b"\n".join((*lines, b"")))

    async def _end(self) -> None:
        self.disconnect("it was stopped")
        try:
            await self._process.end()
        finally:
            self._reaper.forget(self.pid)

    def _read_stdout(self, chunk: bytes) -> Iterator[None]:
        try:
            for line in self._stdout.feed(chunk):
                if self._lost.done():
                    return
                self.received(line)
                yield
            for ends in self._stdout.overflowed:
                self.dropped(ends)
        except Exception as error:  # noqa: BLE001  reported; the next call reconnects
            self._events.failed(error)
            self.disconnect(f"its output could not be read: {error}")

    def _closed(self, what: str) -> None:
        """Lose the connection: a child that neither reads nor writes is of no use, even if it runs."""
        if not self._lost.done():
            self.tasks.start(self._lose_with_reason, what)

    async def _lose_with_reason(self, what: str) -> None:
        try:
            what = await self._exit_reason() or what
        finally:
            self.disconnect(what)

    async def _watch(self) -> None:
        """Lose the connection when the child exits, even if a grandchild keeps its stdout open."""
        await self._process.exited.wait()
        await asyncio.wait([self._lost], timeout=REST_S)  # stdout usually ends with the child
        self.disconnect(self._how_it_ended() or "it ended")

    def _read_stderr(self, chunk: bytes) -> Iterator[None]:
        for line in self._stderr.feed(chunk):
            text = beginning(printable(line), SHOWN) + ("…" if len(line) > SHOWN else "")
            self._last_lines.append(text)
            self._events.stderr_line(text)
            yield

    async def _exit_reason(self) -> str | None:
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await self._process.exited.wait()
            async with asyncio.timeout(REST_S):
                await self._stderr_ended.wait()
        return self._how_it_ended()

    def _how_it_ended(self) -> str | None:
        code = self._process.returncode
        if code is None:
            return None
        how = f"it was ended by signal {-code}" if code < 0 else f"it exited with code {code}"
        return f"{how}: {self._last_lines[-1]}" if self._last_lines else how


LISTENING_S: Final = 5.0
"""How long to wait for the acknowledgement of `subscriptions/listen` before going on without it."""
OPENING_S: Final = 30.0
"""How long the second child may take to respond."""
PROBE_S: Final = 15.0
"""How long a request waits to learn whether the server speaks both protocols."""
NOT_STATELESS: Final = "it does not speak a stateless protocol version"


def _discover() -> Call:
    return Call("server/discover", versions.to_modern(b""), SILENT)


def _about(method: str, uri: str) -> Call:
    return Call(method, encode({"uri": uri}), SILENT)


class StatelessChild(StdioConnection):
    """A child that serves stateless clients only."""

    async def handshake(self) -> None:
        """Ask for its versions. Raises UpstreamDisconnected when none is stateless."""
        identity = identity_of_discover(await self.request(_discover()))
        if identity is None:
            raise UpstreamDisconnected(NOT_STATELESS)
        self.be_stateless(identity)
        with suppress(TimeoutError):
            async with asyncio.timeout(LISTENING_S):
                await self._subscriptions.begun()


class DualVersionStdioServer(StdioConnection):
    """The child that was started with a handshake, and a second, stateless one while there is one."""

    def __init__(
        self,
        definition: ServerDefinition,
        events: Events,
        reaper: OrphanReaper,
        max_message_bytes: int,
    ) -> None:
        super().__init__(definition, events, reaper, max_message_bytes)
        self._second: StatelessChild | None = None
        self._alone = False
        """Whether no second child could be started."""
        self._deciding = asyncio.Lock()
        self._opening: asyncio.Future[None] | None = None
        """Done once the second child is running, or has failed to start."""
        self._watched: set[str] = set()

    async def handshake(self) -> None:
        """Send `initialize`; what is stored about the same release still holds."""
        await super().handshake()
        before = self._events.remembered()
        if before is not None and before.is_release_of(self.identity):
            self.identity.both = before.both

    def request(self, call: Call) -> Coroutine[None, None, Answer]:
        """Send a request to the child that speaks the client's protocol."""
        both = call.modern or call.caller is SILENT or call.method.startswith("resources/")
        return self._request_of_both(call) if both else super().request(call)

    async def _request_of_both(self, call: Call) -> Answer:
        if call.modern and not self.identity.modern:
            second = await self._stateless()
            if second is not None:
                return await second.request(call)
        answer = await super().request(call)
        await self._repeat(call, answer)
        return answer

    async def _repeat(self, call: Call, answer: Answer) -> None:
        """Send to the second child what concerns both: subscriptions and pings."""
        uri = decode_target(call.params).uri or "" if call.params else ""
        if call.method == "resources/subscribe" and not answer.failed:
            self._watched.add(uri)
        elif call.method == "resources/unsubscribe":
            self._watched.discard(uri)
        elif call.method != "ping":
            return
        if self._second is not None and self._second.lost is None:
            also = _discover() if call.method == "ping" else _about(call.method, uri)
            with suppress(UpstreamDisconnected):
                await self._second.request(also)

    async def _stateless(self) -> StatelessChild | None:
        """Return the second child, started if need be; None when the first one serves both protocols.

        Only a fresh child shows whether the server speaks both: one that was met with a handshake answers
        `server/discover` with whatever its SDK has for a method that it does not know there.
        """
        if self.identity.both is False or self._alone:
            return None
        async with self._deciding:
            if self._second is not None and self._second.lost is None:
                return self._second
            if self._opening is None or self._opening.done():
                opening: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                running = self.tasks.start(self._run_second, opening)
                running.add_done_callback(lambda _: _settle(opening))
                self._opening = opening
            patience_s = OPENING_S if self.identity.both else PROBE_S
            await asyncio.wait((self._opening,), timeout=patience_s)
            return self._second

    async def _run_second(self, opening: asyncio.Future[None]) -> None:
        """Own the second child, from its start to its end."""
        self._second = None
        async with AsyncExitStack() as stack:
            opened = StatelessChild.open(
                self._definition, self._events, self._reaper, max_message_bytes=self._limit
            )
            try:
                async with asyncio.timeout(OPENING_S):
                    second = await stack.enter_async_context(opened)
                for uri in tuple(self._watched):
                    await second.request(_about("resources/subscribe", uri))
            except (UpstreamDisconnected, TimeoutError) as error:
                self._alone = True
                if str(error) == NOT_STATELESS:
                    self._learned(both=False)
                    return
                reason = str(error) or f"no answer within {OPENING_S:g} s"
                self._events.stderr_line(f"no second child for stateless clients: {reason}")
                return
            self._second = second
            self._learned(both=True)
            _settle(opening)
            reason = await second.wait_closed()
            self._events.stderr_line(
                f"the second child, for stateless clients, has ended: {reason}"
            )

    def _learned(self, *, both: bool) -> None:
        if self.identity.both is not both:
            self.identity.both = both
            self._events.identity_updated()

    def disconnect(self, reason: str) -> None:
        """Close both children."""
        super().disconnect(reason)
        if self._second is not None:
            self._second.disconnect(reason)


def _settle(opening: asyncio.Future[None]) -> None:
    if not opening.done():
        opening.set_result(None)
