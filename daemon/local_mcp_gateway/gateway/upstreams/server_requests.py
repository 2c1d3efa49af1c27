"""Requests that servers send to clients: cancellation and progress.

A client may take long to respond. The server can cancel its request (`notifications/cancelled`), and it
is cancelled when no call is left that it could belong to. Its progress token is replaced by one of
ours, so that the client's progress reaches the server that made the request.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.gateway.protocol import (
    MALFORMED,
    Answer,
    Envelope,
    decode_members,
    edit,
    jsonrpc,
    member,
    response,
)
from local_mcp_gateway.gateway.upstreams.connection import UpstreamDisconnected

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.tasks import TaskScope

MOST_OPEN: Final = 1000
"""How many open requests one server may have."""
PESTERING: Final = f"it does not wait for the answers to its questions: {MOST_OPEN} are open"

Notify = Callable[[str, bytes], Awaitable[None]]
ROOTS: Final = "roots/list"
"""The request that is of no call: what a client has for roots outlasts the call that happens to run."""

Ask = Callable[[str, bytes], Awaitable[Answer]]


class ProgressTokens:
    """The progress tokens of all open server requests, and who receives progress for each."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[bytes, Notify]] = {}

    @contextmanager
    def tracked(self, params: bytes, notify: Notify) -> Iterator[bytes]:
        """Yield the params of a server request, with its progress token replaced by ours."""
        meta = member(params, "_meta") if b"progressToken" in params else b""
        token = jsonrpc.token_in(meta)
        if not token:
            yield params
            return
        own = b'"gateway-%s"' % secrets.token_hex(8).encode()  # no other client can name it
        self._known[own] = token, notify
        try:
            yield edit(params, {"_meta": edit(meta, {"progressToken": own})})
        finally:
            del self._known[own]

    async def forward_progress(self, params: bytes) -> None:
        """Forward a client's progress to the server that waits for it; drop any other."""
        with suppress(UpstreamDisconnected, *MALFORMED):
            if (found := self._known.get(progress_token(params))) is not None:
                token, notify = found
                await notify("notifications/progress", edit(params, {"progressToken": token}))


class ServerRequests:
    """The open requests of one connection, by the id that its server gave them."""

    def __init__(self, tasks: TaskScope, tokens: ProgressTokens, notify: Notify) -> None:
        self._tasks = tasks
        self._tokens = tokens
        self._notify = notify
        self.open: dict[bytes, tuple[asyncio.Future[None], object]] = {}
        self._due = 0

    def take(
        self,
        message: Envelope,
        owner: object,
        ask: Ask,
        reply: Callable[[bytes], Awaitable[None]],
    ) -> bool:
        """Send the request to the client and its response to the server, unless it is cancelled first.

        Return False, and drop the request, if there are too many.
        """
        if self._due >= MOST_OPEN:
            return False
        self._due += 1
        identity = bytes(message.id)

        async def work() -> None:
            with self._tokens.tracked(bytes(message.params), self._notify) as params:
                answer = await ask(message.method, params)
            close()  # a request that has its response cannot be cancelled
            await reply(response(identity, answer))

        def close() -> None:
            if self.open.get(identity, (None,))[0] is task:
                del self.open[identity]

        def done(_: object) -> None:
            self._due -= 1
            close()

        task = self._tasks.start(work)
        self.open[identity] = task, None if message.method == ROOTS else owner
        task.add_done_callback(done)
        return True

    def called_off(self, params: bytes) -> None:
        """Cancel a request that the server no longer needs."""
        if (found := self.open.get(member(params, "requestId"))) is not None:
            found[0].cancel()

    async def release(self, owner: object) -> None:
        """Cancel what was asked for a call, or a client, that no longer waits for anything.

        On return the client has been notified, so that it hears of it before the response to its call.
        """
        tasks = [task for task, whose in self.open.values() if whose is owner]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def progress_token(params: bytes) -> bytes:
    """Return the bytes of a progress notification's token."""
    token = decode_members(params).get("progressToken")
    return b"" if token is None else bytes(token)
