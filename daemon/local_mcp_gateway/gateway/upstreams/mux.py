"""Multiplex many clients over one message stream: give requests our own ids and match responses.

Shared by stdio and legacy SSE, where every message arrives on one stream in any order. The reader of
that stream passes each message to `received`, which never waits for a client.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.gateway.protocol import Answer, Envelope, jsonrpc, printable, versions
from local_mcp_gateway.gateway.upstreams.connection import (
    LOST_CODES,
    SILENT,
    Call,
    ConnectionBase,
    Events,
    Identity,
    UpstreamDisconnected,
    reject,
)
from local_mcp_gateway.gateway.upstreams.handshake import (
    identity_of_discover,
    identity_of_initialize,
    initialize,
)
from local_mcp_gateway.gateway.upstreams.large_responses import identity_in
from local_mcp_gateway.gateway.upstreams.server_requests import (
    PESTERING,
    ServerRequests,
    progress_token,
)
from local_mcp_gateway.gateway.upstreams.subscriptions import TAKEN, Subscriptions
from local_mcp_gateway.log import beginning

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.upstreams.large_responses import LineEnds

RELISTEN_S: Final = 1.0
SHOWN_JUNK: Final = 200
"""How many characters of a malformed line are reported."""


class Mux(ConnectionBase, ABC):
    """The calls in flight on one stream."""

    def __init__(self, events: Events, max_message_bytes: int) -> None:
        super().__init__(events)
        self._limit = max_message_bytes
        self._calls: dict[int, tuple[asyncio.Future[Answer], Call]] = {}
        self._next = 0
        self._subscriptions = Subscriptions(self.request, events, self.tasks, _pause)
        self._server_requests = ServerRequests(self.tasks, events.tokens, self.notify)

    @abstractmethod
    async def send(self, message: bytes) -> None:
        """Write one message to the server. Raises UpstreamDisconnected."""

    async def request(self, call: Call) -> Answer:
        """Send a request under our own id and wait for its response."""
        if self._lost.done():
            raise UpstreamDisconnected(self._lost.result(), unsent=True)
        if self.identity.modern and call.method in TAKEN:
            return await self._subscriptions.take(call)
        self._next += 1
        number = self._next
        identity = b"%d" % number
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        params = self._translated(call, call.prepared(identity))
        self._calls[number] = future, call
        try:
            await self.send(jsonrpc.request(identity, call.method, params))
            return await future
        except asyncio.CancelledError:
            if number in self._calls and not self._lost.done() and call.method != "initialize":
                reason = b'{"requestId":' + identity + b',"reason":"cancelled by the client"}'
                message = jsonrpc.notification("notifications/cancelled", reason)
                self.tasks.start(self._send_if_alive, message)
            raise
        finally:
            self._calls.pop(number, None)
            if self._server_requests.open:
                await self._release(call.caller.client)

    async def notify(self, method: str, params: bytes) -> None:
        """Send one notification."""
        await self.send(jsonrpc.notification(method, params))

    async def handshake(self) -> None:
        """Send `initialize`; if the server is stateless only, ask for its versions.

        A server that speaks both protocols is used with the handshake one: there it can send its client
        a request in the middle of a call, which the gateway translates for stateless clients.
        """
        answer = await initialize(self.request, self.introduction())
        if answer.failed and versions.error_code(answer) in LOST_CODES:
            discover = Call("server/discover", versions.to_modern(b""), SILENT)
            identity = identity_of_discover(await self.request(discover))
            if identity is not None:
                self.be_stateless(identity)
                return
        self.identity = identity_of_initialize(answer)
        await self.notify("notifications/initialized", b"")

    def be_stateless(self, identity: Identity) -> None:
        """Switch to the stateless protocol."""
        self.identity = identity
        self._subscriptions.begin()

    def received(self, line: bytes) -> None:
        """Process one message of the server; report and drop what is not a message."""
        if not line or line.isspace():
            return
        if not line.isascii():
            line = jsonrpc.readable(line)
        try:
            self._sort(jsonrpc.decode_envelope(line))
        except jsonrpc.MALFORMED:
            try:
                for message in jsonrpc.messages_in(line):  # of a JSON-RPC batch (2025-03-26)
                    self._sort(message)
            except jsonrpc.MALFORMED:
                self._events.stderr_line(
                    "stdout, not JSON-RPC: " + beginning(printable(line), SHOWN_JUNK)
                )

    def _sort(self, message: Envelope) -> None:
        if not message.method:
            self._answered(message)
        elif message.is_request:
            callers = self._callers()
            client = callers[-1].caller.client if callers else None
            if not self._server_requests.take(message, client, self._ask, self._send_if_alive):
                self.disconnect(PESTERING)
        else:
            self._notified(message.method, bytes(message.params))

    def dropped(self, ends: LineEnds) -> None:
        """Fail the call whose id is in the remains of a message that was too large."""
        identity = identity_in(ends.head, ends.tail) or b""
        waiting = self._calls.pop(jsonrpc.number_of(identity), None)
        if waiting is not None and not waiting[0].done():
            text = f"The server's answer is larger than {self._limit} bytes (max_message_bytes)"
            waiting[0].set_result(jsonrpc.failure(jsonrpc.INTERNAL_ERROR, text))
        self._events.stderr_line(f"stdout: a message larger than {self._limit} bytes was dropped")

    def disconnect(self, reason: str) -> None:
        """Close the stream: every call that waits fails."""
        super().disconnect(reason)
        for future, _ in self._calls.values():
            reject(future, reason)

    def _translated(self, call: Call, params: bytes) -> bytes:
        if self.identity.modern == call.modern:
            return params
        if self.identity.modern:
            return versions.to_modern(params, call.caller.capabilities, call.caller.log_level)
        return versions.to_handshake(params)

    def _answered(self, message: Envelope) -> None:
        waiting = self._calls.pop(jsonrpc.number_of(message.id), None)
        if waiting is None or waiting[0].done():
            return
        waiting[0].set_result(jsonrpc.answer_in(message))

    def _notified(self, method: str, params: bytes) -> None:
        if method == "notifications/cancelled":
            self._server_requests.called_off(params)
        elif method == "notifications/progress":
            if waiting := self._calls.get(jsonrpc.number_of(progress_token(params))):
                waiting[1].on_notification(method, params)
        elif self.identity.modern and (waiting := self._calls.get(subscription(params))):
            waiting[1].on_notification(method, params)
        else:
            callers = [call.caller for call in self._callers()]
            self._events.on_notification(method, params, callers)

    async def _release(self, client: object) -> None:
        """Cancel the server requests to a client that has no calls left."""
        if client is not None and all(c.caller.client is not client for c in self._callers()):
            await self._server_requests.release(client)

    async def _ask(self, method: str, params: bytes) -> Answer:
        """Pass a server request on; the stream does not say which of the running calls it belongs to."""
        if method == "ping":
            return jsonrpc.success({})
        callers = [call.caller for call in self._callers()]
        return await self._events.on_request(method, params, callers)

    def _callers(self) -> list[Call]:
        """Return the calls that a client waits for, oldest first."""
        return [call for _, call in self._calls.values() if call.caller.client is not None]

    async def _send_if_alive(self, message: bytes) -> None:
        with suppress(UpstreamDisconnected):
            if not self._lost.done():
                await self.send(message)


def subscription(params: bytes) -> int:
    """Return the id of the `subscriptions/listen` that a notification belongs to, or 0."""
    if b"/subscriptionId" not in params:
        return 0
    meta = jsonrpc.member(params, "_meta")
    return jsonrpc.number_of(jsonrpc.member(meta, versions.SUBSCRIPTION_KEY))


async def _pause() -> None:
    await asyncio.sleep(RELISTEN_S)
