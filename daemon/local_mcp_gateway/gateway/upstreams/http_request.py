"""Send one HTTP request to a server: its redirects, its compression, and why it failed or was refused."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import aiohttp
from yarl import URL

from local_mcp_gateway.gateway.protocol import printable
from local_mcp_gateway.gateway.upstreams.connection import (
    HttpRefusal,
    SignInNeeded,
    UpstreamDisconnected,
)
from local_mcp_gateway.gateway.upstreams.network import (
    CONNECT_S,
    PROXY_SIGN_IN,
    give_up_pool,
    unreachable,
)
from local_mcp_gateway.log import beginning

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from local_mcp_gateway.store import ServerDefinition

STEP_BYTES: Final = 256 * 1024
_BITS: Final = {"gzip": 31, "x-gzip": 31, "deflate": zlib.MAX_WBITS}
MOST_REDIRECTS: Final = 5
SAME_METHOD: Final = frozenset({307, 308})
"""Redirects that keep method and body (RFC 9110, 15.4)."""
FOLLOWED: Final[Mapping[str, frozenset[int]]] = {"GET": SAME_METHOD | {301, 302, 303}}
"""Method → redirects that are followed; those that would turn a POST into a GET are not."""
UNAUTHORIZED: Final = 401
PROXY_UNAUTHORIZED: Final = 407
SHOWN: Final = 200
"""How many characters of it are shown."""


async def send(
    http: aiohttp.ClientSession,
    method: str,
    url: URL,
    headers: Mapping[str, str],
    body: bytes | None = None,
) -> aiohttp.ClientResponse:
    """Send a request and return the HTTP response, following redirects within the URL's origin.

    Redirects to another origin are not followed, since our headers may hold secrets: then the redirect
    itself is returned.
    """
    for _ in range(MOST_REDIRECTS):
        reply = await _send_whole(http, method, url, headers, body)
        if (onward := redirected(reply, method)) is None:
            return reply
        reply.release()
        url = onward
    raise UpstreamDisconnected("it redirects in a circle")


async def _send_whole(
    http: aiohttp.ClientSession,
    method: str,
    url: URL,
    headers: Mapping[str, str],
    body: bytes | None,
) -> aiohttp.ClientResponse:
    """Send one request; once more if its connection was closed before it took the whole of it.

    Some servers close a connection after each answer without having said so. Only what could not be
    written is sent again: what a server has received it may have done.
    """
    again = False
    while True:
        try:
            return await http.request(
                method, url, data=body, headers=headers, allow_redirects=False
            )
        except aiohttp.ClientConnectorError:
            raise
        except aiohttp.ClientOSError as error:
            give_up_pool(http)
            if again or error.errno is not None:
                raise
            again = True
        except aiohttp.ServerDisconnectedError:
            give_up_pool(http)
            raise


def redirected(reply: aiohttp.ClientResponse, method: str, *, anywhere: bool = False) -> URL | None:
    """Return the redirect target, if it is at the same origin or may be anywhere."""
    if reply.status not in FOLLOWED.get(method, SAME_METHOD):
        return None
    try:
        target = reply.url.join(URL(reply.headers["Location"]))
        return target if anywhere or target.origin() == reply.url.origin() else None
    except (KeyError, ValueError):
        return None


def redirection(reply: aiohttp.ClientResponse) -> str | None:
    """Describe a redirect that is not followed."""
    if not 300 <= reply.status < 400 or "Location" not in reply.headers:
        return None
    given = reply.headers["Location"]
    origin = reply.url.origin() if given[:1] == "/" and given[:2] != "//" else ""
    where = f"{origin}{printable(given.encode('utf-8', 'replace'))}"
    return f"it redirects to {where}: give that URL, if you trust it"


class PostRequest:
    """One POST: enter to get the HTTP response, leave when it was read or is not wanted."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        url: URL,
        body: bytes,
        headers: dict[str, str],
        unreachable: Callable[[str], None],
    ) -> None:
        self._posting = send(http, "POST", url, headers, body)
        self._unreachable = unreachable

    async def __aenter__(self) -> aiohttp.ClientResponse:
        """Send the request and return the HTTP response."""
        try:
            self._reply = reply = await self._posting
        except (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError) as error:
            self._unreachable(reason_of(error))
            raise UpstreamDisconnected(reason_of(error), unsent=True) from None
        except (aiohttp.ClientError, ConnectionError) as error:
            raise UpstreamDisconnected(reason_of(error)) from None
        if (elsewhere := redirection(reply)) is not None:
            reply.release()
            raise UpstreamDisconnected(elsewhere)
        return reply

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Release the connection, or close it when more of the body is to come."""
        self._reply.release()
        await self._reply.wait_for_close()
        if isinstance(error, aiohttp.ClientError | ConnectionError):
            raise UpstreamDisconnected(reason_of(error)) from None


def encoding_of(reply: aiohttp.ClientResponse) -> str:
    """Return the content encoding of the body; empty when there is none."""
    encoding = reply.headers.get("Content-Encoding", "").strip().lower()
    return "" if encoding == "identity" else encoding


def chunks_of(reply: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Yield the body as it arrives. Raises UpstreamDisconnected when it cannot be decoded."""
    encoding = encoding_of(reply)
    chunks = reply.content.iter_any()
    return decoded(encoding, chunks) if encoding else chunks


async def decoded(encoding: str, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the decompressed chunks, at most `STEP_BYTES` at a time."""
    if encoding not in _BITS:
        raise UpstreamDisconnected(f"it answered in an encoding that was not asked for: {encoding}")
    stream = zlib.decompressobj(_BITS[encoding])
    try:
        async for chunk in chunks:
            rest = chunk
            while rest and not stream.eof:
                part = stream.decompress(rest, STEP_BYTES)
                rest = stream.unconsumed_tail
                if part:
                    yield part
        while part := stream.decompress(stream.unconsumed_tail, STEP_BYTES):
            yield part
    except zlib.error as error:
        raise UpstreamDisconnected(f"its {encoding} cannot be read: {error}") from None
    if not stream.eof:
        raise UpstreamDisconnected("it broke off its answer")


def refusal(
    reply: aiohttp.ClientResponse, server: ServerDefinition, body: bytes = b""
) -> HttpRefusal:
    """Return an HTTP error, with what a person can do about it."""
    if reply.status == PROXY_UNAUTHORIZED:
        return HttpRefusal(PROXY_SIGN_IN, reply.status, body)
    if reply.status != UNAUTHORIZED:
        reason = redirection(reply) or f"it answered HTTP {reply.status}{_said(reply, body)}"
        return HttpRefusal(reason, reply.status, body)
    if not has_authorization(server):
        return SignInNeeded(server.name)
    how = f"server edit {server.name} --header Authorization=…"
    reason = f"it refuses its Authorization header (HTTP {UNAUTHORIZED}): give it a valid one with `{how}`"
    return HttpRefusal(reason, reply.status, body)


def _said(reply: aiohttp.ClientResponse, body: bytes) -> str:
    """Return what an HTTP error says in its body, unless that is a page, and when to try again."""
    page = "html" in reply.content_type
    text = "" if page else printable(b" ".join(body.split()))
    wait = printable(reply.headers.get("Retry-After", "").encode("utf-8", "replace"))
    return (f" (Retry-After: {wait})" if wait else "") + (
        f": {beginning(text, SHOWN)}" if text else ""
    )


def has_authorization(server: ServerDefinition) -> bool:
    """Return whether a person has given what authorizes requests to a server."""
    return any(name.lower() == "authorization" for name in server.headers)


def reason_of(error: BaseException) -> str:
    """Describe a connection error without the URL, which may hold a secret."""
    match error:
        case aiohttp.ClientConnectorError() | aiohttp.ClientHttpProxyError():
            return unreachable(error)
        case aiohttp.ServerTimeoutError():
            return f"no connection within {CONNECT_S} s"
        case aiohttp.ServerDisconnectedError():
            return "it closed the connection without an answer"
        case aiohttp.ClientPayloadError():
            return "it broke off its answer"
        case aiohttp.ClientResponseError():
            first = error.message.partition("\n")[0].removesuffix(":")
            return f"it answered with something that is not HTTP: {printable(first.encode())}"
        case aiohttp.ClientOSError():  # its text has the URL
            return os.strerror(error.errno) if error.errno else "it closed the connection"
        case aiohttp.InvalidURL() | UnicodeError():  # the latter of a host that has no place in DNS
            return "its URL is not valid"
        case OSError():
            return error.strerror or type(error).__name__
        case _:
            return str(error) or type(error).__name__
