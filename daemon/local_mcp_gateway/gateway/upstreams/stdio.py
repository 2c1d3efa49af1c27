"""One child process that many clients share. A line is a message.

The child lives in its own process group and is ended as a tree. The connection is lost when it closes
its stdout; every call that waits then fails at once, with what the child last wrote to stderr.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

from local_mcp_gateway.gateway.protocol.lines import Lines, printable
from local_mcp_gateway.gateway.upstreams.lost import UpstreamLost
from local_mcp_gateway.gateway.upstreams.mux import Mux
from local_mcp_gateway.gateway.upstreams.process import Output, end, spawn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from local_mcp_gateway.gateway.upstreams.connection import Events
    from local_mcp_gateway.gateway.upstreams.warden import Warden
    from local_mcp_gateway.store.model import ServerDefinition

CHUNK_BYTES: Final = 256 * 1024
REST_S: Final = 0.2
"""How long the last output of a child that has ended is waited for."""
KEPT_LINES: Final = 20
"""Lines of stderr that are kept, to say why a child has ended."""
SHOWN_BYTES: Final = 4096
"""How much of a line of stderr is told: it may stand in an error, a log line and the health."""


class StdioConnection(Mux):
    """A running child. `await StdioConnection.open(…)` returns once it has answered the handshake."""

    def __init__(
        self,
        definition: ServerDefinition,
        events: Events,
        warden: Warden,
        max_message_bytes: int,
    ) -> None:
        super().__init__(events, max_message_bytes)
        self._definition = definition
        self._warden = warden
        self._stdout, self._stderr = Lines(max_message_bytes), Lines(CHUNK_BYTES)
        self._stderr_ended = asyncio.Event()
        self._last_lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._outgoing: list[bytes] = []

    @classmethod
    async def open(
        cls,
        definition: ServerDefinition,
        events: Events,
        warden: Warden,
        *,
        max_message_bytes: int,
    ) -> Self:
        """Start the child and shake hands; a child that does not answer is ended before this raises."""
        connection = cls(definition, events, warden, max_message_bytes)
        await connection._spawn()
        try:
            await warden.watch(connection.pid)
            await connection.handshake()
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _spawn(self) -> None:
        self._process = await spawn(
            self._definition,
            stdout=Output(self._read_stdout, lambda: self._closed("it closed its output")),
            stderr=Output(self._read_stderr, self._stderr_ended.set),
            deaf=lambda: self._closed("it closed its input"),
        )
        self.pid = self._process.pid
        self.start(self._watch())

    async def send(self, message: bytes) -> None:
        """Write one line; what a client pretty-printed is made one first.

        Lines of one turn of the event loop are written with one system call at its end. A child that
        does not read holds up who has more for it.
        """
        if b"\n" in message or b"\r" in message:
            message = msgspec.json.format(message, indent=-1)
        assert self._process.stdin is not None, "stdin is a pipe"
        if self._process.stdin.is_closing():
            raise UpstreamLost(await self.wait_lost(), unsent=True)
        if self._process.stdin.transport.get_write_buffer_size():
            with suppress(ConnectionError):
                await self._process.stdin.drain()
        if not self._outgoing:
            asyncio.get_running_loop().call_soon(self._write)
        self._outgoing.append(message)

    def _write(self) -> None:
        lines, self._outgoing = self._outgoing, []
        assert self._process.stdin is not None, "stdin is a pipe"
        self._process.stdin.write(b"\n".join((*lines, b"")))

    async def close(self) -> None:
        """End the child and its tree, and the tasks that read from it."""
        self.lose("it was stopped")
        await end(self._process)
        self._warden.forget(self.pid)
        await self.end_tasks()

    def _read_stdout(self, chunk: bytes) -> Iterator[None]:
        try:
            for line in self._stdout.feed(chunk):
                if self._lost.done():
                    return
                self.received(line)
                yield
            for ends in self._stdout.overflowed:
                self.dropped(ends)
        except Exception:
            self.lose("it broke off its output")
            raise

    def _closed(self, what: str) -> None:
        """Lose the connection: a child that neither reads nor writes is of no use, though it may live."""
        if not self._lost.done():
            self.start(self._lose_with_reason(what))

    async def _lose_with_reason(self, what: str) -> None:
        try:
            what = await self._exit_reason() or what
        finally:
            self.lose(what)

    async def _watch(self) -> None:
        """Lose the connection with the child, also when a grandchild keeps its stdout open."""
        await self._process.reaped()
        await asyncio.wait([self._lost], timeout=REST_S)  # stdout usually ends with the child
        self.lose(self._how_it_ended() or "it ended")

    def _read_stderr(self, chunk: bytes) -> Iterator[None]:
        for line in self._stderr.feed(chunk):
            text = printable(line[:SHOWN_BYTES]) + ("…" if len(line) > SHOWN_BYTES else "")
            self._last_lines.append(text)
            self._events.wrote(text)
            yield

    async def _exit_reason(self) -> str | None:
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await self._process.reaped()
            async with asyncio.timeout(REST_S):
                await self._stderr_ended.wait()
        return self._how_it_ended()

    def _how_it_ended(self) -> str | None:
        code = self._process.returncode
        if code is None:
            return None
        how = f"it was ended by signal {-code}" if code < 0 else f"it exited with code {code}"
        return f"{how}: {self._last_lines[-1]}" if self._last_lines else how
