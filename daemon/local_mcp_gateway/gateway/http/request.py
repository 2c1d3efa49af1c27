"""One HTTP request: its headers, its body, simple responses to it, and the check of where it is from."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import msgspec

from local_mcp_gateway.gateway.protocol import (
    INVALID_REQUEST,
    Answer,
    failure,
    response,
    versions,
)

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.protocol import Envelope
    from local_mcp_gateway.store import ClientToken

Scope = Mapping[str, Any]
Receive = Callable[[], Any]
Send = Callable[[dict[str, Any]], Any]
Headers = list[tuple[bytes, bytes]]

JSON_HEADER: Final = (b"content-type", b"application/json")
METRICS: Final = b"text/plain; version=0.0.4; charset=utf-8"
STREAM_TYPE: Final = "text/event-stream"
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_HOST: Final = re.compile(r"(?:\[([\da-f:.]+)\]|([\w.-]+))(?::\d{0,5})?", re.ASCII | re.IGNORECASE)
"""A name or an address, with or without a port (RFC 9110, 7.2), and no user info."""
SPACE: Final = b" \t"
"""What may surround a header's value without being part of it (RFC 9110, 5.5)."""
PREFIX: Final = re.compile(r"(/[\w.~-]+)+", re.ASCII)
OWN: Final = "local_mcp_gateway.own"
"""The key of a scope that marks a request of this process: no client can send it."""
_NEVER: Final = re.compile(r"q=0(\.0*)?")


class BodyTooLarge(Exception):
    """The request's body is larger than allowed."""


class HttpRequest(msgspec.Struct, eq=False):
    """A request. `extra` are headers that every response to it carries."""

    method: str
    path: str
    headers: dict[str, str]
    receive: Receive
    send: Send
    extra: Headers
    peer: str = ""
    """The host that it came from."""
    own: bool = False
    """Whether it is the gateway's own, and comes over no network."""
    token: ClientToken | None = None
    """The token that it showed, if it did and was admitted."""

    @classmethod
    def of(cls, scope: Scope, receive: Receive, send: Send) -> HttpRequest:
        """Read the request line and headers; a browser origin gets CORS headers."""
        sent = scope["headers"]
        headers = {
            name.decode("latin-1"): value.strip(SPACE).decode("latin-1") for name, value in sent
        }
        if len(headers) != len(sent):
            headers = _joined(sent)
        origin = headers.get("origin")
        extra = [] if origin is None else _cors(origin)
        peer = scope.get("client") or ("",)
        own = OWN in scope
        return cls(scope["method"], scope["path"], headers, receive, send, extra, peer[0], own)

    @property
    def prefix(self) -> str:
        """Return the path below which a reverse proxy shows the gateway; empty without one."""
        given = self.headers.get("x-forwarded-prefix", "").rstrip("/")
        return given if PREFIX.fullmatch(given) else ""

    @property
    def token_id(self) -> str:
        """Return the id of its token, "" without one."""
        return "" if self.token is None else self.token.id

    @property
    def sender(self) -> str:
        """Identify the client, as far as a request does."""
        return f"{self.peer} {self.headers.get('user-agent', '')}"

    def fault_of(self, message: Envelope) -> tuple[int, Answer] | None:
        """Return the status and error for a message that cannot be served at all."""
        if (why := message.fault) is not None:
            return 400, failure(INVALID_REQUEST, why)
        kind = self.headers.get("content-type", versions.JSON)
        if kind != versions.JSON and kind.partition(";")[0].strip().lower() != versions.JSON:
            return 415, failure(INVALID_REQUEST, "Content-Type must be application/json")
        version = self.headers.get("mcp-protocol-version", versions.NEWEST_HANDSHAKE)
        known = version in versions.HANDSHAKE or versions.is_modern(version, message)
        if not known and message.method != "initialize":
            served = ", ".join((*versions.HANDSHAKE, *versions.MODERN))
            text = f"Unsupported protocol version {version}: {served}"
            return 400, failure(INVALID_REQUEST, text)
        return None

    def is_stateless(self, message: Envelope) -> bool:
        """Return whether its message is stateless, by its header; by the envelope without one."""
        version = self.headers.get("mcp-protocol-version", "")
        if not version and ("mcp-session-id" in self.headers or message.method == "initialize"):
            return False
        return version not in versions.HANDSHAKE and versions.is_modern(version, message)

    @property
    def streams(self) -> bool:
        """Whether the client accepts an event stream."""
        return accepts_stream(self.headers.get("accept", ""))

    @property
    def takes_anything(self) -> bool:
        """Whether the client leaves open what it gets, as libraries do by themselves."""
        accept = self.headers.get("accept", "")
        return not accept or "*/*" in accept or "text/*" in accept

    async def body(self, limit: int) -> bytes:
        """Read the whole body. Raises BodyTooLarge, at once where Content-Length says so."""
        if int(self.headers.get("content-length", 0)) > limit:
            raise BodyTooLarge
        message = await self.receive()
        parts: list[bytes] = [message.get("body", b"")]
        size = len(parts[0])
        while message.get("more_body") and size <= limit:
            message = await self.receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
        if size > limit:
            raise BodyTooLarge
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def reply(self, status: int, body: bytes) -> None:
        """Respond with JSON."""
        headers = [JSON_HEADER, (b"content-length", b"%d" % len(body)), *self.extra]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    async def plain(self, status: int, answer: Answer) -> None:
        """Respond with JSON that has no id: an error envelope, or a bare result."""
        body = response(b"null", answer) if answer.failed else bytes(answer.body)
        await self.reply(status, body)

    async def refuse(self, message: Envelope, status: int, answer: Answer) -> None:
        """Respond to a message that is not served."""
        await self.reply(status, response(message.reply_id, answer))

    async def text(self, body: str, media_type: bytes = METRICS) -> None:
        """Respond with text."""
        kind = (b"content-type", media_type)
        encoded = body.encode()
        headers = [kind, (b"content-length", b"%d" % len(encoded)), *self.extra]
        await self.send({"type": "http.response.start", "status": 200, "headers": headers})
        await self.send({"type": "http.response.body", "body": encoded})

    async def empty(self, status: int, *more: tuple[bytes, bytes]) -> None:
        """Respond without a body."""
        length = [] if status == 204 else [(b"content-length", b"0")]
        headers = [*length, *more, *self.extra]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": b""})

    async def not_allowed(self, methods: bytes) -> None:
        """Respond 405 with the allowed methods."""
        await self.empty(405, (b"allow", methods))


def profile_in(path: str) -> str | None:
    """Return the profile that a path names, "" for the default one; None for a path that serves no MCP."""
    parts = path.strip("/").removeprefix("api/").split("/")
    if parts[0] not in {"mcp", "sse"} or len(parts) > 2:
        return None
    name = parts[1] if len(parts) == 2 else ""
    return "" if name == "gateway" and path.startswith("/api/") else name


@lru_cache(64)
def accepts_stream(accept: str) -> bool:
    """Return whether an `Accept` header allows an event stream: named, and not with weight 0."""
    for choice in accept.lower().split(","):
        kind, *parameters = (part.strip() for part in choice.split(";"))
        if kind == STREAM_TYPE:
            return not any(_NEVER.fullmatch(parameter) for parameter in parameters)
    return False


def _joined(sent: Headers) -> dict[str, str]:
    """Return repeated headers joined into one, as HTTP defines it; one that is sent twice alike, once."""
    headers: dict[str, str] = {}
    for name, value in sent:
        key, text = name.decode("latin-1"), value.strip(SPACE).decode("latin-1")
        if headers.setdefault(key, text) != text:
            headers[key] += f", {text}"
    return headers


def _cors(origin: str) -> Headers:
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-allow-methods", b"GET, POST, DELETE, OPTIONS"),
        (b"access-control-allow-headers", b"*, authorization"),
        (b"access-control-expose-headers", b"mcp-session-id, www-authenticate"),
        (b"vary", b"origin"),
    ]


class OriginCheck:
    """Refuses requests by Host and Origin: a web page may reach us under its own name (DNS rebinding)."""

    def __init__(self, hosts: tuple[str, ...], origins: tuple[str, ...]) -> None:
        self._hosts = LOOPBACK | {host.lower() for host in hosts}
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)
        self._admitted: set[tuple[str | None, str | None]] = set()

    def refusal(self, headers: Mapping[str, str]) -> str | None:
        """Return why a request is refused, or None to accept it."""
        host, origin = headers.get("host"), headers.get("origin")
        if (host, origin) in self._admitted:
            return None
        if host is None:
            return "The request names no Host"
        if _hostname(host) not in self._hosts:
            return f"Host {host!r} is not allowed; the setting gateway.allowed_hosts lists more"
        if origin is not None and not self._known(origin.lower()):
            return (
                f"Origin {origin!r} is not allowed; the setting gateway.allowed_origins lists more"
            )
        if len(self._admitted) < 64:
            self._admitted.add((host, origin))
        return None

    def _known(self, origin: str) -> bool:
        scheme, _, host = origin.partition("://")
        return origin in self._origins or (
            scheme in {"http", "https"} and _hostname(host) in self._hosts
        )


def _hostname(host: str) -> str | None:
    """Return the name or address in a Host header, in lower case; None where it is malformed."""
    found = _HOST.fullmatch(host)
    return None if found is None else (found[1] or found[2]).lower()
