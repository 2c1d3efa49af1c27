"""Translate server requests during a call between the handshake and the stateless protocol.

A handshake server sends a request and waits. A stateless one returns `input_required` and is called
again with the client's replies. For a stateless client of a handshake server the call is parked: it
keeps waiting at the server, while the client gets `input_required` with a token for its next round.
For a handshake client of a stateless server the gateway sends the requests and makes the next round.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import msgspec

from local_mcp_gateway.gateway.clients import refusal
from local_mcp_gateway.gateway.protocol import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    Answer,
    edit,
    encode,
    failure,
    member,
)

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.tasks import TaskScope
    from local_mcp_gateway.gateway.upstreams import Caller, Relay

PARKED_S: Final = 600.0
"""How long a parked call waits for its client's next round."""
MOST_PARKED: Final = 1000
MOST_ROUNDS: Final = 10
PREFIX: Final = "gateway-"

Ask = Callable[[str, bytes], Awaitable[Answer]]
Forward = Callable[[bytes], Awaitable[Answer]]


class _InputRequest(msgspec.Struct):
    method: str
    params: msgspec.Raw = msgspec.Raw(b"{}")


class _InputRequired(msgspec.Struct, rename="camel"):
    result_type: str = "complete"
    input_requests: dict[str, _InputRequest] = {}
    request_state: str | None = None


class PendingCall:
    """The caller of a stateless client's call: server requests wait here for the next round."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.asking: dict[str, tuple[str, bytes, asyncio.Future[Answer]]] = {}
        self.attended = True
        self.arrived = asyncio.Event()
        """Set when there is something for the client: a server request, or the response."""
        self.answer: Answer | None = None
        self.call: asyncio.Future[None] | None = None
        self.expiry: asyncio.Future[None] | None = None
        self._numbered = 0

    @property
    def capabilities(self) -> bytes:
        """Return the capabilities that the client declared."""
        return self.caller.capabilities

    @property
    def log_level(self) -> str | None:
        """Return the log level that the client has asked for."""
        return self.caller.log_level

    @property
    def client(self) -> object:
        """Return this: no other call is known to be of the same stateless client."""
        return self

    @property
    def relay(self) -> Relay | None:
        """Return the function that streams a large response, while a round is running."""
        return self.caller.relay if self.attended else None

    def on_notification(self, method: str, params: bytes) -> None:
        """Pass the notification to the running round."""
        self.caller.on_notification(method, params)

    async def on_request(self, method: str, params: bytes) -> Answer:
        """Wait for a later round to bring the client's reply."""
        capability = method.partition("/")[0]
        if (refused := refusal(self.capabilities, method, params)) is not None:
            return refused
        self._numbered += 1
        key = f"{capability}-{self._numbered}"
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.asking[key] = method, params, future
        self.arrived.set()
        try:
            return await future
        finally:
            self.asking.pop(key, None)


class PendingCalls:
    """The calls of stateless clients that wait for another round, by token."""

    def __init__(self, tasks: TaskScope) -> None:
        self._tasks = tasks
        self._parked: dict[str, PendingCall] = {}

    async def begin(self, caller: Caller, forward: Callable[[Caller], Awaitable[Answer]]) -> Answer:
        """Make a call; return its response, or `input_required` with the server's requests."""
        pending_call = PendingCall(caller)

        async def run() -> None:
            pending_call.answer = await forward(pending_call)

        pending_call.call = self._tasks.start(run)
        pending_call.call.add_done_callback(lambda _: pending_call.arrived.set())
        return await self._next(pending_call)

    def resumes(self, params: bytes) -> bool:
        """Return whether these params continue a call that is parked here."""
        return b'"' + PREFIX.encode() in params and self._token(params) is not None

    async def resume(self, params: bytes, caller: Caller) -> Answer:
        """Continue a parked call with the client's replies."""
        pending_call = self._parked.pop(self._token(params) or "", None)
        if pending_call is None:
            return failure(INVALID_PARAMS, "The requestState is unknown or has expired")
        if pending_call.expiry is not None:
            pending_call.expiry.cancel()
        pending_call.caller, pending_call.attended = caller, True
        responses = member(params, "inputResponses")
        for key, (_, _, future) in tuple(pending_call.asking.items()):
            if (response := member(responses, key)) and not future.done():
                future.set_result(Answer(response))
                del pending_call.asking[key]
        assert pending_call.call is not None, "the call was begun"
        if not pending_call.asking and not pending_call.call.done():
            pending_call.arrived.clear()
        return await self._next(pending_call)

    async def _next(self, pending_call: PendingCall) -> Answer:
        assert pending_call.call is not None, "the call was begun"
        try:
            await pending_call.arrived.wait()
        except asyncio.CancelledError:
            pending_call.call.cancel()
            raise
        if pending_call.call.done():
            return pending_call.answer or failure(INTERNAL_ERROR, "The call was broken off")
        return self._park(pending_call)

    def _park(self, pending_call: PendingCall) -> Answer:
        token = PREFIX + secrets.token_hex(16)
        while len(self._parked) >= MOST_PARKED:
            self._leave(next(iter(self._parked)))
        self._parked[token], pending_call.attended = pending_call, False
        pending_call.expiry = self._tasks.start(self._expire, token)
        requests = {
            key: {"method": method, "params": msgspec.Raw(params or b"{}")}
            for key, (method, params, _) in pending_call.asking.items()
        }
        result = {
            "resultType": "input_required",
            "inputRequests": requests,
            "requestState": token,
        }
        return Answer(encode(result))

    async def _expire(self, token: str) -> None:
        await asyncio.sleep(PARKED_S)
        self._leave(token)

    def _leave(self, token: str) -> None:
        """Cancel a parked call whose client did not return."""
        pending_call = self._parked.pop(token, None)
        if (
            pending_call is not None
            and pending_call.call is not None
            and pending_call.expiry is not None
        ):
            pending_call.expiry.cancel()
            pending_call.call.cancel()

    def _token(self, params: bytes) -> str | None:
        state = member(params, "requestState").decode("utf-8", "replace").strip('"')
        return state if state.startswith(PREFIX) else None

    def close(self) -> None:
        """Cancel every parked call."""
        for token in tuple(self._parked):
            self._leave(token)


async def ask_until_complete(params: bytes, ask: Ask, forward: Forward) -> Answer:
    """Make a call, and ask its handshake client for what a stateless server requires, round by round."""
    answer = await forward(params)
    for _ in range(MOST_ROUNDS):
        if answer.failed or b'"input_required"' not in bytes(answer.body):
            return answer
        required = msgspec.json.decode(answer.body, type=_InputRequired)
        if required.result_type != "input_required":
            return answer
        responses: dict[str, msgspec.Raw] = {}
        for key, request in required.input_requests.items():
            given = await ask(request.method, bytes(request.params))
            if given.failed:
                return given
            responses[key] = msgspec.Raw(bytes(given.body))
        if not responses:
            await asyncio.sleep(0.1)
        state = required.request_state
        changes = {
            "inputResponses": encode(responses) if responses else None,
            "requestState": None if state is None else encode(state),
        }
        answer = await forward(edit(params, changes))
    return failure(METHOD_NOT_FOUND, f"The server asked for more after {MOST_ROUNDS} rounds")
