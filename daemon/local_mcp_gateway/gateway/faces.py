"""What clients reach over HTTP: Streamable HTTP in both eras, and health.

`/mcp` and `/api/mcp/gateway` show the default profile, `/mcp/NAME` and `/api/mcp/NAME` that one. This
is a bare ASGI application: between a client and its upstream stands nothing but what is in here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from local_mcp_gateway.gateway import envelope, eras
from local_mcp_gateway.gateway.envelope import (
    INVALID_REQUEST,
    PARSE_ERROR,
    Answer,
    Envelope,
    decode_envelope,
    failure,
    response,
)
from local_mcp_gateway.gateway.exchange import JSON_HEADER, Exchange, Headers, Receive, Send
from local_mcp_gateway.gateway.router import Request
from local_mcp_gateway.gateway.sse_face import serve_sse, take
from local_mcp_gateway.gateway.streams import listen, serve_stream

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.hub import Hub
    from local_mcp_gateway.gateway.sessions import Session

Scope = Mapping[str, Any]
FORWARDED: Final = "mcp-param-"


class TooLarge(Exception):
    """The request's body is larger than `max_request_bytes`."""


class Faces:
    """The ASGI application."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request."""
        if scope["type"] != "http":
            return
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        if (why := self._hub.doorkeeper.refusal(headers)) is not None:
            self._hub.emit("call.refused", reason=why, path=scope["path"])
            await _plain(send, 403, failure(INVALID_REQUEST, why))
            return
        origin = headers.get("origin")
        extra: Headers = [] if origin is None else _cors(origin)
        path: str = scope["path"]
        if path.startswith("/health/"):
            await self._health(path, send)
        elif path.startswith("/messages/") and scope["method"] == "POST":
            await self._message(path, receive, send, extra)
        elif (profile := self._profile(path)) is None:
            await _plain(send, 404, failure(INVALID_REQUEST, self._not_here(path)), extra)
        elif path.startswith("/sse"):
            root: str = scope.get("root_path", "")
            if scope["method"] == "GET":
                await serve_sse(self._hub, profile, root, receive, send, extra)
            else:
                await _empty(send, 405, [(b"allow", b"GET"), *extra])
        elif scope["method"] == "POST":
            await self._post(profile, headers, receive, send, extra)
        elif scope["method"] == "OPTIONS":
            await _empty(send, 204, extra)
        elif headers.get("mcp-protocol-version") in eras.MODERN:
            await _empty(send, 405, [(b"allow", b"POST"), *extra])
        elif scope["method"] in {"GET", "DELETE"}:
            await self._session_only(scope["method"], profile, headers, receive, send, extra)
        else:
            await _empty(send, 405, [(b"allow", b"GET, POST, DELETE"), *extra])

    def _profile(self, path: str) -> str | None:
        parts = path.strip("/").removeprefix("api/").split("/")
        if parts[0] not in {"mcp", "sse"} or len(parts) > 2:
            return None
        api = path.startswith("/api/")
        default = len(parts) == 1 or not parts[1] or (api and parts[1] == "gateway")
        profiles = self._hub.registry.profiles
        name = self._hub.options.default_profile if default else parts[1]
        if default and name not in profiles and len(profiles) == 1:
            return next(iter(profiles))  # the only one there is needs no name
        return name if name in profiles else None

    def _not_here(self, path: str) -> str:
        """Say what is served instead: a mistyped profile is the usual cause."""
        names = sorted(self._hub.registry.profiles)
        if not names:
            return (
                f"Nothing is served at {path}: there is no profile yet; add one with `server add`"
            )
        return f"Nothing is served at {path}; there is " + ", ".join(f"/mcp/{n}" for n in names)

    async def _health(self, path: str, send: Send) -> None:
        if path == "/health/live":
            await _plain(send, 200, envelope.success({"status": "alive"}))
        elif path == "/health/ready":
            await _plain(send, 200, envelope.success({"status": "ready", **self._hub.status()}))
        else:
            await _empty(send, 404, [])

    async def _message(self, path: str, receive: Receive, send: Send, extra: Headers) -> None:
        """Take what a client of the legacy SSE face posts."""
        session = self._hub.sessions.of_stream(path.removeprefix("/messages/"))
        if session is None:
            await _plain(send, 404, failure(INVALID_REQUEST, "Session not found"), extra)
            return
        message = await self._decoded(receive, send, extra)
        if message is not None:
            await _empty(send, 202, extra)
            take(self._hub, session, message)

    # --- POST -----------------------------------------------------------------------------------

    async def _post(
        self,
        profile: str,
        headers: Mapping[str, str],
        receive: Receive,
        send: Send,
        extra: Headers,
    ) -> None:
        message = await self._decoded(receive, send, extra)
        if message is None:
            return
        if (fault := _fault(headers, message)) is not None:
            await _plain(send, fault[0], fault[1], extra)
        elif eras.is_modern(headers, message):
            await self._post_modern(profile, headers, message, receive, send, extra)
        else:
            await self._post_handshake(profile, headers, message, receive, send, extra)

    async def _decoded(self, receive: Receive, send: Send, extra: Headers) -> Envelope | None:
        """Read and decode the body; what cannot be decoded is answered here."""
        try:
            return decode_envelope(await _read(receive, self._hub.options.max_request_bytes))
        except TooLarge:
            await _plain(send, 413, failure(INVALID_REQUEST, "The request is too large"), extra)
        except msgspec.ValidationError:
            text = "Body must be a single JSON-RPC request, notification or response object"
            await _plain(send, 400, failure(INVALID_REQUEST, text), extra)
        except msgspec.DecodeError:
            await _plain(send, 400, failure(PARSE_ERROR, "Parse error"), extra)
        return None

    async def _post_modern(
        self,
        profile: str,
        headers: Mapping[str, str],
        message: Envelope,
        receive: Receive,
        send: Send,
        extra: Headers,
    ) -> None:
        if not message.is_request:
            await _empty(send, 202, extra)
            return
        opened = eras.open_envelope(headers, message)
        if isinstance(opened, Answer):
            await _reply(send, eras.status_of(opened), response(message.id, opened), extra)
            return
        if message.method == "subscriptions/listen":
            await listen(self._hub, profile, message, receive, send, extra)
            return
        exchange = Exchange(
            receive,
            send,
            session=None,
            capabilities=opened.capabilities,
            log_level=opened.log_level,
            streams="text/event-stream" in headers.get("accept", ""),
            keepalive_s=self._hub.options.keepalive_s,
            headers=extra,
        )
        forwarded = tuple((k, v) for k, v in headers.items() if k.startswith(FORWARDED))
        request = Request(
            profile, message.method, bytes(message.params), exchange, None, True, forwarded
        )
        await self._run(request, message, exchange)

    async def _post_handshake(
        self,
        profile: str,
        headers: Mapping[str, str],
        message: Envelope,
        receive: Receive,
        send: Send,
        extra: Headers,
    ) -> None:
        identity = headers.get("mcp-session-id")
        session = None if identity is None else self._hub.sessions.find(identity, profile)
        if identity is not None and session is None:
            answer = failure(envelope.UPSTREAM_UNAVAILABLE, "Session not found")
            await _reply(send, 404, response(message.id, answer), extra)
        elif message.method == "initialize" and message.is_request:
            session = self._hub.sessions.open(profile, bytes(message.params))
            answer = self._hub.hello(session)
            extra = [(b"mcp-session-id", session.id.encode()), *extra]
            await _reply(send, 200, response(message.id, answer), extra)
        elif message.is_request:
            await self._call(profile, headers, message, session, receive, send, extra)
        else:
            self._hub.took(profile, session, message)
            await _empty(send, 202, extra)

    async def _call(
        self,
        profile: str,
        headers: Mapping[str, str],
        message: Envelope,
        session: Session | None,
        receive: Receive,
        send: Send,
        extra: Headers,
    ) -> None:
        exchange = Exchange(
            receive,
            send,
            session=session,
            capabilities=b"{}" if session is None else session.capabilities,
            log_level="debug",
            streams="text/event-stream" in headers.get("accept", ""),
            keepalive_s=self._hub.options.keepalive_s,
            headers=extra,
        )
        request = Request(profile, message.method, bytes(message.params), exchange, session)
        await self._run(request, message, exchange)

    async def _run(self, request: Request, message: Envelope, exchange: Exchange) -> None:
        """Handle a request until it is answered, cancelled by its client, or its client has left."""
        began = time.perf_counter_ns()
        task = asyncio.current_task()
        assert task is not None, "an ASGI server runs this in a task"
        session, identity = request.session, bytes(message.id)
        answer: Answer | None = None
        if session is not None:
            session.running[identity] = exchange.cancel
        try:
            answer = await self._hub.router.handle(request)
        except asyncio.CancelledError:
            if self._hub.stopping or (session is None and not exchange.left):
                await exchange.abandon()
                raise
            task.uncancel()
        finally:
            if session is not None:
                session.running.pop(identity, None)
            self._hub.finished(request, answer, began)
        if exchange.left:
            await exchange.abandon()
            return
        answer = answer or failure(envelope.CANCELLED, "Request cancelled")
        status = eras.status_of(answer) if request.modern else 200
        await exchange.finish(response(message.id, answer), status)

    # --- GET and DELETE -------------------------------------------------------------------------

    async def _session_only(
        self,
        method: str,
        profile: str,
        headers: Mapping[str, str],
        receive: Receive,
        send: Send,
        extra: Headers,
    ) -> None:
        identity = headers.get("mcp-session-id")
        if identity is None:
            status, text = (405, "GET and DELETE need a session")
            await _plain(send, status, failure(INVALID_REQUEST, text), extra)
            return
        session = self._hub.sessions.find(identity, profile)
        if session is None:
            answer = failure(envelope.UPSTREAM_UNAVAILABLE, "Session not found")
            await _plain(send, 404, answer, extra)
        elif method == "DELETE":
            self._hub.sessions.close(session)
            await _empty(send, 200, extra)
        elif "text/event-stream" not in headers.get("accept", ""):
            await _plain(send, 406, failure(INVALID_REQUEST, "Accept text/event-stream"), extra)
        else:
            last = headers.get("last-event-id")
            await serve_stream(self._hub, session, last, receive, send, extra)


def _fault(headers: Mapping[str, str], message: Envelope) -> tuple[int, Answer] | None:
    """Return the status and error of a message that cannot be served at all."""
    if message.jsonrpc != "2.0" or not (message.method or message.id):
        return 400, failure(INVALID_REQUEST, "This is no JSON-RPC 2.0 message")
    if not headers.get("content-type", "application/json").startswith("application/json"):
        return 415, failure(INVALID_REQUEST, "Content-Type must be application/json")
    version = headers.get("mcp-protocol-version")
    known = version is None or version in eras.HANDSHAKE or eras.is_modern(headers, message)
    if not known and message.method != "initialize":
        served = ", ".join((*eras.HANDSHAKE, *eras.MODERN))
        return 400, failure(INVALID_REQUEST, f"Unsupported protocol version {version}: {served}")
    return None


async def _read(receive: Receive, limit: int) -> bytes:
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        if len(body) > limit:
            raise TooLarge
        return body
    parts = [body]
    size = len(body)
    while message.get("more_body"):
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise TooLarge
    return b"".join(parts)


def _cors(origin: str) -> Headers:
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-allow-methods", b"GET, POST, DELETE, OPTIONS"),
        (b"access-control-allow-headers", b"*, authorization"),
        (b"access-control-expose-headers", b"mcp-session-id, www-authenticate"),
        (b"vary", b"origin"),
    ]


async def _plain(send: Send, status: int, answer: Answer, extra: Headers | None = None) -> None:
    """Answer what has no id: an error envelope, or a bare result."""
    body = response(b"null", answer) if answer.failed else bytes(answer.body)
    await _reply(send, status, body, extra or [])


async def _reply(send: Send, status: int, body: bytes, extra: Headers) -> None:
    headers = [JSON_HEADER, (b"content-length", b"%d" % len(body)), *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _empty(send: Send, status: int, extra: Headers) -> None:
    headers = extra if status == 204 else [(b"content-length", b"0"), *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


Application = Callable[[Scope, Receive, Send], Awaitable[None]]
