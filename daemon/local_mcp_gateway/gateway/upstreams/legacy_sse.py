"""Connect to an HTTP+SSE server (2024-11-05): one event stream down, a POST for each message up."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

import aiohttp
from yarl import URL

from local_mcp_gateway.gateway.protocol import EventTooLarge, hops
from local_mcp_gateway.gateway.upstreams.connection import (
    Events,
    HttpRefusal,
    UpstreamDisconnected,
)
from local_mcp_gateway.gateway.upstreams.http_request import reason_of, refusal, send
from local_mcp_gateway.gateway.upstreams.http_transport import events_of
from local_mcp_gateway.gateway.upstreams.mux import Mux

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from local_mcp_gateway.store import ServerDefinition

POST_TIMEOUT_S: Final = 60.0


class SseConnection(Mux):
    """An open stream. `async with SseConnection.open(…)` begins once the server has responded."""

    def __init__(
        self,
        definition: ServerDefinition,
        http: aiohttp.ClientSession,
        events: Events,
        max_message_bytes: int,
    ) -> None:
        super().__init__(events, max_message_bytes)
        assert definition.url is not None, "an SSE server has a URL"
        self._definition = definition
        self._url = URL(definition.url)
        self._headers = dict(definition.headers)
        self._http = http
        self._refused: HttpRefusal | None = None
        self._endpoint: asyncio.Future[URL] = asyncio.get_running_loop().create_future()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        definition: ServerDefinition,
        http: aiohttp.ClientSession,
        events: Events,
        *,
        max_message_bytes: int,
    ) -> AsyncIterator[SseConnection]:
        """Open the stream and perform the handshake; close it on exit."""
        connection = cls(definition, http, events, max_message_bytes)
        async with connection.tasks:
            connection.tasks.start(connection._read)
            try:
                await asyncio.wait(
                    (connection._endpoint, connection._lost), return_when=asyncio.FIRST_COMPLETED
                )
                if connection._refused is not None:
                    raise connection._refused
                await connection.handshake()
                connection.identity.keeps = True  # the stream is a session
                yield connection
            finally:
                connection.disconnect("it was stopped")

    async def send(self, message: bytes) -> None:
        """Post one message to the endpoint that the stream announced."""
        if not self._endpoint.done():
            raise UpstreamDisconnected(self.lost or "it named no endpoint", unsent=True)
        via = {hops.HEADER: self._events.via()}
        headers = {"Content-Type": "application/json", **self._headers, **via}
        try:
            async with (
                asyncio.timeout(POST_TIMEOUT_S),
                await send(self._http, "POST", self._endpoint.result(), headers, message) as reply,
            ):
                if reply.status >= 300:
                    raise refusal(reply, self._definition)
        except TimeoutError:
            raise UpstreamDisconnected(f"it took no message within {POST_TIMEOUT_S:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamDisconnected(reason_of(error)) from None

    async def _read(self) -> None:
        reason = "it closed its stream"
        via = {hops.HEADER: self._events.via()}
        headers = {"Accept": "text/event-stream", **self._headers, **via}
        try:
            async with await send(self._http, "GET", self._url, headers) as reply:
                if reply.status != 200:
                    raise refusal(reply, self._definition)
                async for event in events_of(reply, self._limit):
                    self._take(reply.url, event.event, event.data)
        except (aiohttp.ClientError, OSError) as error:
            reason = reason_of(error)
        except HttpRefusal as refused:
            self._refused = refused
            reason = refused.reason
        except UpstreamDisconnected as lost:
            reason = lost.reason
        except EventTooLarge:
            reason = f"it sent a message larger than {self._limit} bytes"
        finally:
            self.disconnect(reason)

    def _take(self, base: URL, event: bytes, data: bytes) -> None:
        if event == b"message":
            self.received(data)
        elif event == b"endpoint" and not self._endpoint.done():
            try:
                endpoint = base.join(type(base)(data.decode()))
            except ValueError:
                self.disconnect("it announced an endpoint that is not a valid URL")
                return
            if endpoint.origin() == base.origin():
                self._endpoint.set_result(endpoint)
            else:
                with suppress(asyncio.InvalidStateError):
                    self.disconnect(f"it named an endpoint at another origin: {endpoint.origin()}")
