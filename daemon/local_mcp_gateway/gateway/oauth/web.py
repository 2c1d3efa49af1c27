"""Send the requests of a sign-in, and read their answers, which are small JSON objects.

The addresses come from the server and from what it refers to, so they are not trusted (RFC 9728, 7.7): only
http and https, plain http only where the server itself is reached so, and no address of this machine or its
networks unless the server is there too. Names are checked as they are resolved for the connection, so that a
second answer of a name server changes nothing. A redirect is followed within its origin, as that of a message
is; that of a document to wherever it could be asked, since nothing secret goes there.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from local_mcp_gateway.gateway.protocol import printable
from local_mcp_gateway.gateway.upstreams import (
    MOST_REDIRECTS,
    UpstreamDisconnected,
    proxy_of,
    reason_of,
    redirected,
    sign_in_session,
)
from local_mcp_gateway.log import beginning

if TYPE_CHECKING:
    from local_mcp_gateway.store import ServerDefinition

REPLY_S: Final = 20.0
ALL_S: Final = 60.0
"""How long all requests between two steps of a person may take together."""
MOST_BYTES: Final = 1024 * 1024
SHOWN: Final = 200

UNKNOWN_CLIENT: Final = frozenset(
    {
        "invalid_client",
        "unauthorized_client",
        "incorrect_client_credentials",
        "invalid_client_id",
        "bad_client_secret",
    }
)
FINAL: Final = UNKNOWN_CLIENT | {"invalid_grant", "bad_refresh_token", "invalid_refresh_token"}
"""Errors after which it makes no sense to try the same again; GitHub and Slack have words of their own."""
PASSING: Final = frozenset({"temporarily_unavailable", "server_error", "slow_down"})
"""Errors after which it may go better."""
_TRANSLATED: Final = tuple(
    map(IPv6Network, ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96"))
)
"""Networks that end in an IPv4 address: compatible and mapped (RFC 4291), SIIT and NAT64 (RFC 6052)."""
_TRANSLATED_LOCALLY: Final = IPv6Network("64:ff9b:1::/48")
_ASSIGNED: Final = IPv4Network("192.0.0.0/24")
"""Addresses of protocols (RFC 6890); some clouds have their metadata there."""
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

    @property
    def is_final(self) -> bool:
        """Whether the same request would be refused again."""
        return self.code in FINAL

    @property
    def is_of_client(self) -> bool:
        """Whether the issuer does not know the client, or no longer."""
        return self.code in UNKNOWN_CLIENT


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
    onward: URL | None = None
    """Where it redirects to, if that is followed."""

    def read(self, kind: type[Kind]) -> Kind:
        """Return its JSON as a typed value. Raises OAuthProblem."""
        try:
            return msgspec.json.decode(self.body, type=kind)
        except (msgspec.DecodeError, RecursionError) as error:
            what = "a web page" if self.is_page else f"something that cannot be used: {error}"
            raise OAuthProblem(f"{self.where} answered with {what}", passes=True) from None

    @property
    def is_page(self) -> bool:
        """Whether it is a web page; some sites have one for every address."""
        return self.body.lstrip()[:1] == b"<"

    @property
    def is_refusal(self) -> bool:
        """Whether it is an error; some answer one with HTTP 200."""
        return self.status not in {200, 201} or bool(self._said.error)

    @property
    def _said(self) -> _Said:
        with suppress(msgspec.DecodeError, RecursionError):  # a web page, or nothing
            return msgspec.json.decode(self.body, type=_Said)
        return _Said()

    @property
    def where(self) -> str:
        """Name the address without its query."""
        return str(self.url.with_query(None).with_user(None))

    def problem(self, what: str) -> OAuthProblem:
        """Return the problem that an answer with an error status describes."""
        said = self._said
        passes = self.status >= 500 or self.status == 429 or said.error in PASSING
        if not said.error or passes:
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
        self._ends = asyncio.get_running_loop().time() + ALL_S

    @classmethod
    @asynccontextmanager
    async def open(cls, server: ServerDefinition) -> AsyncIterator[Web]:
        """Find out where the server is, which decides which addresses are allowed. Raises OAuthProblem."""
        reach = await _reach_of(URL(server.url or "").host or "")
        try:
            web = cls(server, reach)
        except UpstreamDisconnected as lost:
            raise OAuthProblem(lost.reason) from None
        async with web._http:
            yield web

    async def get(self, url: str, *, anywhere: bool = False) -> Reply:
        """Ask for something; `anywhere`: also where it is redirected to another origin."""
        return await self._send("GET", url, {"Accept": "application/json"}, anywhere=anywhere)

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
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        data: Any = None,
        *,
        anywhere: bool = False,
    ) -> Reply:
        for _ in range(MOST_REDIRECTS):
            reply = await self._send_once(
                method, self.checked(url), headers, data, anywhere=anywhere
            )
            if reply.onward is None:
                return reply
            url = str(reply.onward)
        raise OAuthProblem(f"{reply.where} redirects in a circle")

    async def _send_once(
        self, method: str, target: URL, headers: dict[str, str], data: Any, *, anywhere: bool
    ) -> Reply:
        try:
            proxy = proxy_of(self._server, target)
            if proxy is not None and proxy.host:
                self._guard.trusted.add(
                    proxy.host
                )  # it is configured, and resolves the rest itself
            async with (
                asyncio.timeout_at(min(asyncio.get_running_loop().time() + REPLY_S, self._ends)),
                self._http.request(
                    method, target, headers=headers, data=data, proxy=proxy, allow_redirects=False
                ) as reply,
            ):
                streams = reply.content_type == "text/event-stream"
                body = b"" if streams else await _bounded(reply)
                found = tuple(reply.headers.getall("WWW-Authenticate", ()))
                onward = redirected(reply, method, anywhere=anywhere)
                return Reply(target, reply.status, body, found, onward)
        except TimeoutError:
            reason = f"{target.origin()} did not answer in time"
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
    if found.is_loopback or found.is_unspecified:
        return 3
    if isinstance(found, IPv6Address):
        if (inside := _inside(found)) is not None:
            return _reach(str(inside))
        if found.is_site_local or found in _TRANSLATED_LOCALLY:
            return 1
        if found.is_multicast and (int(found) >> 112) & 0xF <= 2:
            return 2  # of this interface or link
    if found.is_link_local:
        return 2
    return 0 if found.is_global and not found.is_multicast and found not in _ASSIGNED else 1


def _inside(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that packets to an IPv6 address go on to, if any."""
    if address.sixtofour is not None:
        return address.sixtofour
    if any(address in network for network in _TRANSLATED):
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return None


async def _reach_of(host: str) -> int:
    """Return how near the server itself is; behind a proxy its name may not resolve here."""
    if _is_address(host):
        return _reach(host)
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # no such name, or none that a name server could be asked for
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
