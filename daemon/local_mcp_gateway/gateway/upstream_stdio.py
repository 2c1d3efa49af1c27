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

from local_mcp_gateway.gateway.lines import Lines, printable
from local_mcp_gateway.gateway.mux import Mux
from local_mcp_gateway.gateway.process import end, exited, spawn

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from typing import Self

    from local_mcp_gateway.gateway.call import Events
    from local_mcp_gateway.gateway.warden import Warden
    from local_mcp_gateway.store.model import ServerDefinition

CHUNK_BYTES: Final = 256 * 1024
REST_S: Final = 0.2
"""How long the last output of a child that has ended is waited for."""
KEPT_LINES: Final = 20
"""Lines of stderr that are kept, to say why a child has ended."""


class StdioConnection(Mux):
    """A running child. `await StdioConnection.open(…)` returns once it has answered the handshake."""

    def __init__(
        self,
        process: Process,
        definition: ServerDefinition,
        events: Events,
        warden: Warden,
        max_message_bytes: int,
    ) -> None:
        super().__init__(events, max_message_bytes)
        self._definition = definition
        self.pid = process.pid
        self._process = process
        self._warden = warden
        self._stderr: deque[str] = deque(maxlen=KEPT_LINES)
        self._outgoing: list[bytes] = []
        self._reading_stderr = self.start(self._read_stderr())
        self.start(self._read_stdout())
        self.start(self._watch())

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
        process = await spawn(definition)
        await warden.watch(process.pid)
        connection = cls(process, definition, events, warden, max_message_bytes)
        try:
            await connection.handshake()
        except BaseException:
            await connection.close()
            raise
        return connection

    async def send(self, message: bytes) -> None:
        """Write one line; what a client pretty-printed is made one first.

        Lines of one turn of the event loop are written with one system call at its end. A child that
        does not read holds up who has more for it.
        """
        if b"\n" in message or b"\r" in message:
            message = msgspec.json.format(message, indent=-1)
        assert self._process.stdin is not None, "stdin is a pipe"
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

    async def _read_stdout(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None, "stdout is a pipe"
        lines = Lines(self._limit)
        reason = "it broke off its output"
        try:
            while chunk := await stdout.read(CHUNK_BYTES):
                for line in lines.feed(chunk):
                    self.received(line)
                if lines.overflowed is not None:
                    self.dropped(lines.overflowed)
            reason = await self._exit_reason()
        finally:
            self.lose(reason)

    async def _watch(self) -> None:
        """Lose the connection with the child, also when a grandchild keeps its stdout open."""
        await exited(self.pid)
        await asyncio.wait([self._lost], timeout=REST_S)  # stdout usually ends with the child
        self.lose(self._how_it_ended())

    async def _read_stderr(self) -> None:
        stderr = self._process.stderr
        assert stderr is not None, "stderr is a pipe"
        lines = Lines(CHUNK_BYTES)
        while chunk := await stderr.read(CHUNK_BYTES):
            for line in lines.feed(chunk):
                text = printable(line)
                self._stderr.append(text)
                self._events.wrote(text)

    async def _exit_reason(self) -> str:
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await self._process.wait()
                await asyncio.wait([self._reading_stderr], timeout=0.2)
        return self._how_it_ended()

    def _how_it_ended(self) -> str:
        code = self._process.returncode
        if code is None:
            return "it closed its output"
        how = f"it was ended by signal {-code}" if code < 0 else f"it exited with code {code}"
        return f"{how}: {self._stderr[-1]}" if self._stderr else how
