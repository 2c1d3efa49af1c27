"""One child process that many clients share: requests get ids of our own, answers find their way back.

A line is a message. The reader task is the only one that reads, and never waits for a client: what a
client is slow to take waits in that client's own queue. The connection is lost when the child closes
its stdout; every call that waits then fails at once.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

from local_mcp_gateway.gateway import envelope, eras
from local_mcp_gateway.gateway.call import Call, Events, UpstreamLost, progress_token
from local_mcp_gateway.gateway.connection import (
    INITIALIZE_PARAMS,
    LOST_CODES,
    SILENT,
    Identity,
    identity_of_discover,
    identity_of_initialize,
)
from local_mcp_gateway.gateway.envelope import Answer, Envelope
from local_mcp_gateway.gateway.lines import Lines
from local_mcp_gateway.gateway.process import end, spawn

if TYPE_CHECKING:
    from asyncio.subprocess import Process

    from local_mcp_gateway.store.model import ServerDefinition

CHUNK_BYTES: Final = 256 * 1024
_OWN_ID: Final = re.compile(rb'"id"\s*:\s*(\d+)')


class StdioConnection:
    """A running child. `await StdioConnection.open(…)` returns once it has answered the handshake."""

    def __init__(self, process: Process, events: Events, max_message_bytes: int) -> None:
        self.identity = Identity()
        self.pid = process.pid
        self._process = process
        self._events = events
        self._limit = max_message_bytes
        self._calls: dict[int, tuple[asyncio.Future[Answer], Call]] = {}
        self._next = 0
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._answering: set[asyncio.Task[None]] = set()
        self._stderr: deque[str] = deque(maxlen=20)
        self._tasks = (
            asyncio.create_task(self._read_stdout()),
            asyncio.create_task(self._read_stderr()),
        )

    @classmethod
    async def open(
        cls, definition: ServerDefinition, events: Events, *, max_message_bytes: int
    ) -> StdioConnection:
        """Start the child and shake hands; a child that does not answer is ended before this raises."""
        connection = cls(await spawn(definition), events, max_message_bytes)
        try:
            await connection._handshake()
        except BaseException:
            await connection.close()
            raise
        return connection

    @property
    def lost(self) -> str | None:
        """Why the child is gone, or None while it runs."""
        return self._lost.result() if self._lost.done() else None

    async def wait_lost(self) -> str:
        """Return the reason when the child has gone."""
        return await asyncio.shield(self._lost)

    async def request(self, call: Call) -> Answer:
        """Send a request under an id of our own and wait for its answer."""
        if self._lost.done():
            raise UpstreamLost(self._lost.result(), unsent=True)
        self._next += 1
        number = self._next
        identity = b"%d" % number
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._calls[number] = future, call
        params = call.prepared(identity)
        if self.identity.modern != call.modern:
            params = (
                eras.to_modern(params, call.caller.capabilities, call.caller.log_level)
                if self.identity.modern
                else eras.to_handshake(params)
            )
        try:
            await self._write(envelope.request(identity, call.method, params))
            return await future
        except asyncio.CancelledError:
            if number in self._calls and not self._lost.done() and call.method != "initialize":
                reason = b'{"requestId":' + identity + b',"reason":"cancelled by the client"}'
                self._write_soon(envelope.notification("notifications/cancelled", reason))
            raise
        finally:
            self._calls.pop(number, None)

    async def notify(self, method: str, params: bytes) -> None:
        """Send one notification."""
        await self._write(envelope.notification(method, params))

    async def close(self) -> None:
        """End the child and its tree, and the tasks that read from it."""
        self._lose("it was stopped")
        await end(self._process)
        for task in (*self._tasks, *self._answering):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._answering, return_exceptions=True)

    async def _handshake(self) -> None:
        answer = await self.request(Call("initialize", INITIALIZE_PARAMS, SILENT))
        if answer.failed and eras.error_code(answer) in LOST_CODES:
            discover = Call("server/discover", eras.to_modern(b""), SILENT)
            identity = identity_of_discover(await self.request(discover))
            if identity is not None:
                self.identity = identity
                return
        self.identity = identity_of_initialize(answer)
        await self.notify("notifications/initialized", b"")

    async def _write(self, message: bytes) -> None:
        self._write_soon(message)
        assert self._process.stdin is not None, "stdin is a pipe"
        with suppress(ConnectionError):
            await self._process.stdin.drain()

    def _write_soon(self, message: bytes) -> None:
        if (
            b"\n" in message or b"\r" in message
        ):  # pretty-printed by the client: a line is a message
            message = msgspec.json.format(message, indent=-1)
        assert self._process.stdin is not None, "stdin is a pipe"
        self._process.stdin.write(message + b"\n")

    async def _read_stdout(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None, "stdout is a pipe"
        lines = Lines(self._limit)
        reason = "it broke off its output"
        try:
            while chunk := await stdout.read(CHUNK_BYTES):
                for line in lines.feed(chunk):
                    self._received(line)
                if lines.overflowed is not None:
                    self._too_large(lines.overflowed)
            reason = await self._exit_reason()
        finally:
            self._lose(reason)

    def _received(self, line: bytes) -> None:
        if not line or line.isspace():
            return
        try:
            message = envelope.decode_envelope(line)
        except msgspec.DecodeError:
            self._events.wrote("stdout, not JSON-RPC: " + line[:200].decode("utf-8", "replace"))
            return
        if not message.method:
            self._answered(message)
        elif message.is_request:
            task = asyncio.create_task(self._answer(message))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
        else:
            self._notified(message.method, bytes(message.params))

    def _answered(self, message: Envelope) -> None:
        identity = bytes(message.id)
        call = self._calls.pop(int(identity), None) if identity.isdigit() else None
        if call is None or call[0].done():
            return
        failed = len(message.error) > 0
        call[0].set_result(Answer(bytes(message.error if failed else message.result), failed))

    def _notified(self, method: str, params: bytes) -> None:
        if method == "notifications/progress":
            token = progress_token(params)
            if token.isdigit() and (waiting := self._calls.get(int(token))):
                waiting[1].notified(method, params)
        elif method == "notifications/message" and len(callers := self._callers()) == 1:
            callers[0].notified(method, params)
        else:
            self._events.notified(method, params)

    async def _answer(self, message: Envelope) -> None:
        """Pass a request of the server to the newest call's client: stdio does not say which one."""
        method, params = message.method, bytes(message.params)
        callers = self._callers()
        if method == "ping":
            answer = envelope.success({})
        elif callers:
            answer = await callers[-1].caller.asked(method, params)
        else:
            answer = await self._events.asked(method, params)
        if not self._lost.done():
            await self._write(envelope.response(message.id, answer))

    def _callers(self) -> list[Call]:
        """Return the calls that a client waits for, oldest first."""
        return [call for _, call in self._calls.values() if call.caller is not SILENT]

    def _too_large(self, head: bytes) -> None:
        found = _OWN_ID.search(head)
        waiting = self._calls.pop(int(found[1]), None) if found else None
        if waiting is not None and not waiting[0].done():
            text = f"The server's answer is larger than {self._limit} bytes (max_message_bytes)"
            waiting[0].set_result(envelope.failure(envelope.INTERNAL_ERROR, text))
        self._events.wrote(f"stdout: a message larger than {self._limit} bytes was dropped")

    async def _read_stderr(self) -> None:
        stderr = self._process.stderr
        assert stderr is not None, "stderr is a pipe"
        lines = Lines(CHUNK_BYTES)
        while chunk := await stderr.read(CHUNK_BYTES):
            for line in lines.feed(chunk):
                text = line.decode("utf-8", "replace")
                self._stderr.append(text)
                self._events.wrote(text)

    async def _exit_reason(self) -> str:
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await self._process.wait()
                await asyncio.wait([self._tasks[1]], timeout=0.2)
        code = self._process.returncode
        if code is None:
            return "it closed its output"
        how = f"it was ended by signal {-code}" if code < 0 else f"it exited with code {code}"
        return f"{how}: {self._stderr[-1]}" if self._stderr else how

    def _lose(self, reason: str) -> None:
        if not self._lost.done():
            self._lost.set_result(reason)
        for future, _ in self._calls.values():
            if not future.done():
                future.set_exception(UpstreamLost(reason))
