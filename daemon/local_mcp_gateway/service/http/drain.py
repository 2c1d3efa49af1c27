"""End at a stop what would never end by itself: streams that only wait for news.

A client keeps a GET stream (or a `subscriptions/listen`) open as long as it lives; waiting for that
would make every stop last its whole deadline. Such requests are told that their client has left, calls
are not: they may finish, and at the deadline they are told that the gateway stops. This stands between
server and application and knows of both only ASGI.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    Receive = Callable[[], Awaitable[dict[str, Any]]]
    Send = Callable[[dict[str, Any]], Awaitable[None]]
    Application = Callable[[Mapping[str, Any], Receive, Send], Awaitable[None]]

_UNAVAILABLE = {
    "type": "http.response.start",
    "status": 503,
    "headers": [(b"content-type", b"application/json"), (b"connection", b"close")],
}
_STOPPING = (
    b'{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"The gateway is stopping."}}'
)
_LISTENS = (b"mcp-method", b"subscriptions/listen")


class Drainable:
    """An ASGI application whose waiting streams can be ended."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """End the streams that wait for news, now and from now on."""
        self._draining.set()

    def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> Awaitable[None]:
        """Pass a request on; a waiting stream hears of the drain as of its client's leaving."""
        waits = scope["type"] == "http" and only_waits(scope)
        serve = self._serve_until_drain if waits else self._serve_until_cancelled
        return serve(scope, receive, send)

    async def _serve_until_cancelled(
        self, scope: Mapping[str, Any], receive: Receive, send: Send
    ) -> None:
        try:
            await self._application(scope, receive, send)
        except asyncio.CancelledError:
            if not self._draining.is_set():
                raise
            # The server would tell of a bug of ours, with a traceback, and answer 500.
            body = _STOPPING
            try:
                await send(_UNAVAILABLE)
            except RuntimeError:
                body = b""  # it has begun, so it ends
            with suppress(RuntimeError):
                await send({"type": "http.response.body", "body": body})

    async def _serve_until_drain(
        self, scope: Mapping[str, Any], receive: Receive, send: Send
    ) -> None:
        began = ended = False

        async def tell(message: dict[str, Any]) -> None:
            nonlocal began, ended
            began = True
            ended = message["type"] == "http.response.body" and not message.get("more_body")
            await send(message)

        async def hear() -> dict[str, Any]:
            return await self._first(receive)

        await self._application(scope, hear, tell)
        if began and not ended:
            # For the application the client has left; the real one gets a proper end.
            await send({"type": "http.response.body", "body": b""})

    async def _first(self, receive: Receive) -> dict[str, Any]:
        hearing = asyncio.ensure_future(receive())
        draining = asyncio.ensure_future(self._draining.wait())
        try:
            await asyncio.wait((hearing, draining), return_when=asyncio.FIRST_COMPLETED)
            return hearing.result() if hearing.done() else {"type": "http.disconnect"}
        finally:
            hearing.cancel()
            draining.cancel()


def only_waits(scope: Mapping[str, Any]) -> bool:
    """Tell whether a request is a stream without an end of its own."""
    return scope["method"] == "GET" or _LISTENS in scope["headers"]
