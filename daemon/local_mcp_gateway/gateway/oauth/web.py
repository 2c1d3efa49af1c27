"""Send the requests of a sign-in, and read their answers, which are small JSON objects.

The addresses come from the server and from what it refers to, so they are not trusted (RFC 9728, 7.7): only
http and https, plain http only where the server itself is reached so, and no address of this machine or its
networks unless the server is there too. Names are checked as they are resolved for the connection, so that a
second answer of a name server changes nothing. No redirect is followed.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from local_mcp_gateway.gateway.protocol import printable
from local_mcp_gateway.gateway.upstreams import (
    UpstreamDisconnected,
    proxy_of,
    reason_of,
    sign_in_session,
)
from local_mcp_gateway.log import beginning

if TYPE_CHECKING:
    from local_mcp_gateway.store import ServerDefinition

REPLY_S: Final = 20.0
MOST_BYTES: Final = 1024 * 1024
SHOWN: Final = 200

Kind = TypeVar("Kind")


class OAuthProblem(Exception):
    """A sign-in or a refresh does not go on; `code` is that of the answer, "" without one.

    `passes`: it may go better later, as with a server that is down.
    """

    def __init__(self, reason: str, *, code: str = "", passes: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code
        self.passes = passes


class _Said(msgspec.Struct):
    """An error of OAuth (RFC 6749, 5.2)."""

    error: str = ""
    error_description: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that was read."""

    url: URL
    status: int
    body: bytes
    challenges: tuple[str, ...] = ()

    def read(self, kind: type[Kind]) -> Kind:
        """Return its JSON as a typed value. Raises OAuthProblem."""
        try:
            return msgspec.json.decode(self.body, type=kind)
        except (msgspec.DecodeError, RecursionError) as error:
            page = self.body[:1] == b"<"
            what = "a web page" if page else f"something that cannot be used: {error}"
            raise OAuthProblem(f"{self.where} answered with {what}", passes=True) from None

    @property
    def where(self) -> str:
        """Name the address without its query."""
        return str(self.url.with_query(None).with_user(None))

    def problem(self, what: str) -> OAuthProblem:
        """Return the problem that an answer with an error status describes."""
        said = _Said()
        with suppress(msgspec.DecodeError, RecursionError):  # a web page, or nothing
            said = msgspec.json.decode(self.body, type=_Said)
        if not said.error or self.status >= 500 or self.status == 429:
            passes = self.status >= 500 or self.status == 429
            return OAuthProblem(
                f"{self.where} answered {what} with HTTP {self.status}", passes=passes
            )
        text = shown(said.error_description or "")
        text = f"{shown(said.error)} ({text})" if text else shown(said.error)
        return OAuthProblem(f"{self.where} refused {what}: {text}", code=said.error)


def shown(text: str) -> str:
    """Return what somebody else has written, fit for a terminal and without known secrets."""
    return beginning(printable(text.encode("utf-8", "replace")), SHOWN)


class Web:
    """The requests of one sign-in; `async with Web.open(server)`."""

    def __init__(self, server: ServerDefinition, reach: int) -> None:
        self._server = server
        self._origin = URL(server.url or "")
        self._guard = _Guard(reach)
        self._http = sign_in_session(server, self._guard)

    @classmethod
    @asynccontextmanager
    async def open(cls, server: ServerDefinition) -> AsyncIterator[Web]:
        """Find out where the server is, which decides which addresses are allowed."""
        web = cls(server, await _reach_of(URL(server.url or "").host or ""))
        async with web._http:
            yield web

    async def get(self, url: str) -> Reply:
        """Fetch a document."""
        return await self._send("GET", url, {"Accept": "application/json"})

    async def post_form(
        self, url: str, form: Mapping[str, str], headers: Mapping[str, str]
    ) -> Reply:
        """Post a form."""
        return await self._send("POST", url, {"Accept": "application/json", **headers}, data=form)

    async def post_json(
        self, url: str, value: object, headers: Mapping[str, str] = MappingProxyType({})
    ) -> Reply:
        """Post a JSON object."""
        own = {"Accept": "application/json", "Content-Type": "application/json", **headers}
        return await self._send("POST", url, own, data=msgspec.json.encode(value))

    def checked(self, url: str) -> URL:
        """Return a URL that may be used. Raises OAuthProblem."""
        try:
            found = URL(url)
        except ValueError:
            found = URL()
        if found.scheme not in {"http", "https"} or not found.host:
            raise OAuthProblem(f"it refers to {shown(url)!r}, which is not a web address")
        if found.scheme == "http" and self._origin.scheme != "http":
            raise OAuthProblem(f"it refers to {shown(url)}, which is not encrypted")
        if _is_address(found.host):
            self._guard.require(found.host, found.host)
        return found

    async def _send(
        self, method: str, url: str, headers: dict[str, str], data: Any = None
    ) -> Reply:
        target = self.checked(url)
        try:
            proxy = proxy_of(self._server, target)
            if proxy is not None and proxy.host:
                self._guard.trusted.add(
                    proxy.host
                )  # it is configured, and resolves the rest itself
            async with (
                asyncio.timeout(REPLY_S),
                self._http.request(
                    method, target, headers=headers, data=data, proxy=proxy, allow_redirects=False
                ) as reply,
            ):
                streams = reply.content_type == "text/event-stream"
                body = b"" if streams else await _bounded(reply)
                found = tuple(reply.headers.getall("WWW-Authenticate", ()))
                return Reply(target, reply.status, body, found)
        except TimeoutError:
            reason = f"{target.origin()} did not answer within {REPLY_S:g} s"
            raise OAuthProblem(reason, passes=True) from None
        except UpstreamDisconnected as lost:
            raise OAuthProblem(lost.reason, passes=True) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise OAuthProblem(f"{target.origin()}: {reason_of(error)}", passes=True) from None


async def _bounded(reply: aiohttp.ClientResponse) -> bytes:
    body = b""
    async for chunk in reply.content.iter_any():
        body += chunk
        if len(body) > MOST_BYTES:
            raise OAuthProblem(f"{reply.url.origin()} answered with more than {MOST_BYTES} bytes")
    return body


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _reach(address: str) -> int:
    """Return how near an address is: 0 anywhere, 1 a private network, 2 this link, 3 this machine."""
    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    if found.is_loopback or found.is_unspecified:
        return 3
    if found.is_link_local:
        return 2
    return 0 if found.is_global else 1


async def _reach_of(host: str) -> int:
    """Return how near the server itself is; behind a proxy its name may not resolve here."""
    if _is_address(host):
        return _reach(host)
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return 0
    return min((_reach(str(each[4][0])) for each in found), default=0)


class _Guard(AbstractResolver):
    """Resolves names, and refuses those that are nearer than the server itself."""

    def __init__(self, reach: int) -> None:
        self._reach = reach
        self._resolver = ThreadedResolver()
        self.trusted: set[str] = set()

    def require(self, host: str, address: str) -> None:
        """Raise OAuthProblem for an address that is too near."""
        if _reach(address) > self._reach:
            raise OAuthProblem(
                f"it refers to {shown(host)}, an address inside of this machine or its networks, "
                "where the server itself is not"
            )

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a name."""
        found = await self._resolver.resolve(host, port, family)
        if host not in self.trusted:
            for each in found:
                self.require(host, each["host"])
        return found

    async def close(self) -> None:
        """End with the session."""
        await self._resolver.close()
