"""Exchange messages with an HTTP server: POST one and read its response, and follow the GET stream of a session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import aiohttp
from yarl import URL

from local_mcp_gateway.gateway.protocol import (
    Answer,
    Envelope,
    EventTooLarge,
    SseParser,
    hops,
    jsonrpc,
    printable,
    sse,
    versions,
)
from local_mcp_gateway.gateway.upstreams import large_responses
from local_mcp_gateway.gateway.upstreams.backoff import ReconnectBackoff
from local_mcp_gateway.gateway.upstreams.connection import (
    CLIENT_HEADERS,
    Call,
    FairShare,
    UpstreamDisconnected,
)
from local_mcp_gateway.gateway.upstreams.http_request import (
    UNAUTHORIZED,
    PostRequest,
    chunks_of,
    encoding_of,
    reason_of,
    refusal,
    send,
)
from local_mcp_gateway.gateway.upstreams.large_responses import HELD_BYTES
from local_mcp_gateway.log import beginning

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from local_mcp_gateway.store import ServerDefinition

STREAM: Final = "text/event-stream"
ACCEPT: Final = f"{versions.JSON}, {STREAM}"
REFUSAL_BYTES: Final = 4096
"""How much of the body of an HTTP error is kept."""
GONE: Final = frozenset({404, 410})
"""HTTP statuses that say that a session is gone."""
DENIED: Final = frozenset({400, 401, 403}) | GONE
"""HTTP statuses of a session that is gone, if a ping gets them too."""
SHOWN: Final = 200
"""How many characters of an error's message are shown."""
MOST_RESUMES: Final = 20
"""How often the stream of one response is resumed; a call's own deadline applies as well."""


class HttpTransport:
    """The URL and session of one server, and how to send requests to it."""

    def __init__(
        self,
        definition: ServerDefinition,
        http: aiohttp.ClientSession,
        max_message_bytes: int,
        unreachable: Callable[[str], None],
        arrived: Callable[[Envelope, Call | None], None],
        via: Callable[[], str],
    ) -> None:
        assert definition.url is not None, "an HTTP server has a URL"
        self._definition = definition
        self._client_headers = frozenset(name.lower() for name in definition.client_headers)
        self._url = URL(definition.url)
        self._http = http
        self._limit = max_message_bytes
        self._held = min(HELD_BYTES, max_message_bytes)
        self._unreachable = unreachable
        self._arrived = arrived
        self._via = via

    def headers(self, extra: dict[str, str]) -> dict[str, str]:
        """Return the headers of every request, with these and the configured ones."""
        return {
            "Accept": ACCEPT,
            "Content-Type": versions.JSON,
            **extra,
            **self._definition.headers,
        }

    def post_request(
        self, body: bytes, headers: dict[str, str], call: Call | None = None
    ) -> PostRequest:
        """Post, and yield the HTTP response. Raises UpstreamDisconnected.

        A client's call takes over the headers of its client that the server is configured to get.
        """
        if call is not None and self._client_headers:
            given = {} if call.caller.client is None else CLIENT_HEADERS.get({})
            taken = {name: given[name] for name in self._client_headers.intersection(given)}
            headers = {name: v for name, v in headers.items() if name.lower() not in taken} | taken
        headers = {**headers, hops.HEADER: self._via()}
        return PostRequest(self._http, self._url, body, headers, self._unreachable)

    async def follow_stream(self, headers: dict[str, str], lasts: Callable[[], bool]) -> bool:
        """Keep the GET stream of a session open while it lasts; return whether a refusal is news of it.

        A server need not offer a stream; it may end one at any time, and say when to reconnect.
        """
        last: str | None = None
        opened = False
        pace = ReconnectBackoff()
        while lasts():
            asked = {**headers, "Accept": STREAM, hops.HEADER: self._via()}
            if last is not None:
                asked["Last-Event-ID"] = last
            try:
                async with await send(self._http, "GET", self._url, asked) as reply:
                    if reply.status != 200 or not reply.content_type.startswith(STREAM):
                        return opened or reply.status == UNAUTHORIZED
                    opened = True
                    async for event in events_of(reply, self._limit):
                        last = event.id or last
                        pace.heard(event.retry_ms)
                        with suppress(*jsonrpc.MALFORMED):
                            for message in jsonrpc.messages_in(jsonrpc.readable(event.data)):
                                self._arrived(message, None)
            except (aiohttp.ClientError, OSError, EventTooLarge, UpstreamDisconnected):
                await self.check()
            await asyncio.sleep(pace.pause_s())
        return False

    async def end_session(self, headers: dict[str, str]) -> None:
        """End our session at the server, as far as it responds."""
        if "Mcp-Session-Id" in headers:
            with suppress(aiohttp.ClientError, TimeoutError, OSError, UpstreamDisconnected):
                async with (
                    asyncio.timeout(1),
                    await send(self._http, "DELETE", self._url, headers),
                ):
                    pass

    async def check(self) -> None:
        """After a broken stream, check that the server accepts connections; else lose the connection."""
        await asyncio.sleep(0.2)
        try:
            async with (
                asyncio.timeout(10),
                self._http.get(self._url, headers={"Accept": versions.JSON}, allow_redirects=False),
            ):
                return
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._unreachable(reason_of(error))

    async def answer_of(
        self,
        reply: aiohttp.ClientResponse,
        call: Call,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Read the response to `call`; pass on the messages before it, and stream it if it is large.

        With the `headers` of a session, a broken stream is resumed (Last-Event-ID).
        """
        if reply.status >= 400:
            return await self._refused(reply, call)
        if reply.content_type == STREAM:
            return await self._answer_in_stream(reply, call, headers)
        body = await self._body(reply, call)
        if isinstance(body, Answer):
            return body
        if not body.isascii():
            body = jsonrpc.readable(body)
        try:
            if body[:1] == b"[" and (answer := self._event(body, call)) is not None:
                return answer  # a JSON-RPC batch, as 2025-03-26 has them
            message = jsonrpc.decode_envelope(body)
        except jsonrpc.MALFORMED:
            message = Envelope()
        if message.error or message.result:
            return jsonrpc.answer_in(message)
        if not body.strip():
            raise UpstreamDisconnected(f"it answered HTTP {reply.status} without a response")
        kind = printable(reply.headers.get("Content-Type", "no Content-Type").encode())
        raise UpstreamDisconnected(f"its response ({kind}) is not valid JSON-RPC")

    async def _refused(self, reply: aiohttp.ClientResponse, call: Call) -> Answer:
        """Return the JSON-RPC error of an HTTP error; raise HttpRefusal when it has none."""
        try:
            body = await self._body(reply, call)
        except (aiohttp.ClientError, UpstreamDisconnected):
            body = b""  # the status says enough
        if isinstance(body, Answer):
            return body
        body = jsonrpc.readable(body)
        with suppress(*jsonrpc.MALFORMED):
            message = jsonrpc.decode_envelope(body)
            said = message.jsonrpc and (message.error or message.result)
            if said and reply.status != UNAUTHORIZED:
                return jsonrpc.answer_in(message)
        raise refusal(reply, self._definition, body[:REFUSAL_BYTES])

    async def _body(self, reply: aiohttp.ClientResponse, call: Call) -> bytes | Answer:
        """Read a body; stream a large one, or refuse it if it has to be buffered and is too large."""
        length = reply.content_length
        if length is not None and length <= self._held and not encoding_of(reply):
            return await reply.read()
        # Without a length or chunks, a complete body looks like a broken connection.
        bounded = length is not None or "Transfer-Encoding" in reply.headers
        held, size, tried = [], 0, not bounded or reply.status != 200
        chunks = chunks_of(reply)
        async for chunk in chunks:
            held.append(chunk)
            size += len(chunk)
            if size > self._held and not tried:
                tried = True
                if (answer := await relayed(b"".join(held), chunks, call)) is not None:
                    return answer
            if size > self._limit:
                return self._too_large()
        return b"".join(held)

    def _too_large(self) -> Answer:
        text = f"The server's answer is larger than {self._limit} bytes (max_message_bytes)"
        return jsonrpc.failure(jsonrpc.INTERNAL_ERROR, text)

    async def _answer_in_stream(
        self, reply: aiohttp.ClientResponse, call: Call, headers: Mapping[str, str] | None
    ) -> Answer:
        """Read a stream up to the response; resume it after a break if possible."""
        place = _Place()
        try:
            answer = await self._read_events(reply, call, place)
            for _ in range(MOST_RESUMES):
                if answer is not None or place.last is None or headers is None:
                    break
                await asyncio.sleep(place.retry_ms / 1000)
                asked = {**headers, "Accept": STREAM, "Last-Event-ID": place.last}
                async with await send(self._http, "GET", self._url, asked) as again:
                    if again.status != 200 or again.content_type != STREAM:
                        break
                    answer = await self._read_events(again, call, place)
        except EventTooLarge:
            return self._too_large()
        if answer is None and place.malformed:
            raise UpstreamDisconnected("it sent an event that is not valid JSON-RPC")
        if answer is None:
            raise UpstreamDisconnected("it ended its stream without an answer")
        return answer

    async def _read_events(
        self, reply: aiohttp.ClientResponse, call: Call, place: _Place
    ) -> Answer | None:
        """Read events up to the response; None when the stream ends or breaks first."""
        parser, turn, tried = SseParser(self._limit + HELD_BYTES), FairShare(), False
        chunks = chunks_of(reply)
        try:
            async for chunk in chunks:
                turn.begin()
                for event in parser.steps(chunk):
                    if event is None:
                        await turn.rest()
                        continue
                    tried = False
                    place.last = event.id or place.last
                    place.retry_ms = event.retry_ms or place.retry_ms
                    said = event.data if event.event == b"message" else b""
                    try:
                        answer = self._event(said, call) if said else None
                    except jsonrpc.MALFORMED:  # passed over, as the official clients do
                        answer, place.malformed = None, True
                    if answer is not None:
                        return answer
                    await turn.rest()
                if parser.waiting_bytes > self._held and not tried:
                    tried = True
                    rest = rest_of_event(parser, chunks)
                    if (answer := await relayed(parser.begun, rest, call)) is not None:
                        return answer
        except aiohttp.ClientPayloadError:
            if place.last is None or call.begun:
                raise
        return None

    def _event(self, data: bytes, call: Call) -> Answer | None:
        """Pass on the messages of an event (or body); return the response, if it is among them."""
        answer = None
        if not data.isascii():
            data = jsonrpc.readable(data)
        for message in jsonrpc.messages_in(data):
            if message.method:
                with suppress(*jsonrpc.MALFORMED):  # ignore malformed messages
                    self._arrived(message, call)
            elif _is_response_to(call, message):
                answer = jsonrpc.answer_in(message)
        return answer


async def events_of(reply: aiohttp.ClientResponse, limit: int) -> AsyncIterator[sse.Event]:
    """Yield the events of a stream, no faster than the server's fair share allows."""
    parser, turn = SseParser(limit), FairShare()
    async for chunk in chunks_of(reply):
        turn.begin()
        for event in parser.steps(chunk):
            if event is not None:
                yield event
            await turn.rest()


@dataclass(slots=True)
class _Place:
    """The position in a stream, and the delay before resuming it."""

    last: str | None = None
    retry_ms: int = 1000
    malformed: bool = False
    """Whether an event was no message."""


def _is_response_to(call: Call, message: Envelope) -> bool:
    """Return whether a response in the stream of this call is its own.

    An error without an id is: the server could not read the id of the one request that it got.
    """
    identity = bytes(message.id)
    if identity in {b"", b"null"}:
        return bytes(message.error)[:1] == b"{"
    number = jsonrpc.number_of(identity)
    return identity == call.identity or (number > 0 and number == jsonrpc.number_of(call.identity))


async def relayed(start: bytes, rest: AsyncIterator[bytes], call: Call) -> Answer | None:
    """Stream a large response to the client; None when it has to be buffered."""
    relay = None if call.whole else call.caller.relay
    if relay is None:
        return None
    added = b""
    if call.modern and not call.served_modern:
        added = versions.modern_members(start, call.method)
    elif call.served_modern and not call.modern and not versions.is_complete(start):
        return None  # it may require input, which the gateway then requests from the client
    found = large_responses.begin(start, _extending(rest, call), call.identity, added)
    return None if found is None else await call.relayed(found, relay)


async def _extending(parts: AsyncIterator[bytes], call: Call) -> AsyncIterator[bytes]:
    """Yield the chunks; extend the call's deadline with each."""
    async for part in parts:
        call.extend()
        yield part


async def rest_of_event(parser: SseParser, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the rest of the current event. Raises UpstreamDisconnected when it is cut off."""
    parser.hand_over()
    async for chunk in chunks:
        part, ended = parser.pass_on(chunk)
        yield part
        if ended:
            return
    raise UpstreamDisconnected("it broke off its answer")


def names_session(answer: Answer, status: int) -> bool:
    """Return whether an error may mean that the server does not know our session."""
    if versions.error_code(answer) == jsonrpc.METHOD_NOT_FOUND:
        return False
    return b"session" in bytes(answer.body).lower() or status in DENIED - {400}


def message_of(answer: Answer) -> str:
    """Return the message of an error, as far as it is shown."""
    return beginning(printable(jsonrpc.member(answer.body, "message").strip(b'"')), SHOWN)
