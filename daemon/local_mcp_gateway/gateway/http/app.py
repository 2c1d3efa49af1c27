"""What clients reach over HTTP: Streamable HTTP in both eras, legacy SSE, health and metrics.

`/mcp` and `/api/mcp/gateway` show the default profile, `/mcp/NAME` and `/api/mcp/NAME` that one. This
is a bare ASGI application: between a client and its upstream stands nothing but what is in here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from local_mcp_gateway.gateway.catalog.header_params import PREFIX
from local_mcp_gateway.gateway.http import metrics
from local_mcp_gateway.gateway.http.request import BodyTooLarge, HttpRequest, Receive, Scope, Send
from local_mcp_gateway.gateway.http.response import PostResponse
from local_mcp_gateway.gateway.http.streams import (
    is_batch,
    listen,
    serve_batch,
    serve_sse,
    serve_stream,
    take,
)
from local_mcp_gateway.gateway.protocol import ambiguity, jsonrpc, versions
from local_mcp_gateway.gateway.protocol.hops import HEADER, REFUSAL
from local_mcp_gateway.gateway.protocol.jsonrpc import (
    INVALID_REQUEST,
    PARSE_ERROR,
    Answer,
    Envelope,
    decode_envelope,
    failure,
    response,
)
from local_mcp_gateway.gateway.routing import server_info
from local_mcp_gateway.gateway.routing.handlers import ClientRequest
from local_mcp_gateway.gateway.tasks import described

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.routing.broker import Broker

JSON: Final = "application/json"
BRIDGE: Final = "local-mcp-gateway-bridge"
"""The header of `local-mcp-gateway stdio`, whose client has no headers to send."""
OWN: Final = frozenset({"/health/live", "/health/ready", "/metrics"})
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class GatewayApp:
    """The ASGI application."""

    def __init__(self, hub: Broker) -> None:
        self._hub = hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request."""
        if scope["type"] == "http":
            await self._served(HttpRequest.of(scope, receive, send), scope.get("root_path", ""))

    # What only decides who serves is no coroutine of its own: each one costs every call.

    def _served(self, visit: HttpRequest, root: str) -> Awaitable[None]:
        if (why := self._hub.doorkeeper.refusal(visit.headers)) is not None:
            self._hub.emit("call.refused", reason=why, path=visit.path)
            visit.extra = []
            return visit.plain(403, failure(INVALID_REQUEST, why))
        if visit.method == "OPTIONS":
            return visit.empty(204)
        if (via := visit.headers.get(HEADER)) is not None:
            return self._from_gateway(visit, root, via)
        return self._routed(visit, root)

    async def _from_gateway(self, visit: HttpRequest, root: str, via: str) -> None:
        """Serve a request that came through a gateway, unless that was this one."""
        profile, hops = self._profile(visit.path), self._hub.hops
        if profile is None:
            await self._routed(visit, root)
        elif hops.comes_back(profile, via):
            self._hub.emit("call.refused", reason=REFUSAL, path=visit.path)
            await visit.plain(508, failure(INVALID_REQUEST, REFUSAL))
        else:
            with hops.guest(profile, via):
                await self._routed(visit, root)

    def _routed(self, visit: HttpRequest, root: str) -> Awaitable[None]:
        if visit.path.startswith(("/mcp", "/api/mcp")):
            return self._mcp(visit)
        if visit.path.startswith(("/sse", "/messages/")):
            return self._legacy(visit, root)
        return self._own(visit)

    def _mcp(self, visit: HttpRequest) -> Awaitable[None]:
        profile = self._profile(visit.path)
        if profile is None:
            return visit.plain(404, failure(INVALID_REQUEST, self._not_here(visit.path)))
        if visit.method == "POST":
            return self._post(profile, visit)
        if visit.headers.get("mcp-protocol-version") in versions.MODERN:
            return visit.not_allowed(b"POST")
        if visit.method in {"GET", "DELETE"}:
            return self._session_only(profile, visit)
        return visit.not_allowed(b"GET, POST, DELETE")

    async def _legacy(self, visit: HttpRequest, root: str) -> None:
        """Serve the transport of 2024-11-05: a stream to GET, and messages to POST."""
        if visit.path.startswith("/messages/") and visit.method == "POST":
            session = self._hub.sessions.of_stream(visit.path.removeprefix("/messages/"))
            if session is None or session.mail is None:
                await visit.plain(404, failure(INVALID_REQUEST, "Session not found"))
            elif (message := await self._decoded(visit)) is None:
                return
            elif (fault := _fault(visit.headers, message)) is not None:
                await visit.plain(*fault)
            else:
                await visit.empty(202)
                take(self._hub, session, session.mail, message)
        elif (profile := self._profile(visit.path)) is None:
            await visit.plain(404, failure(INVALID_REQUEST, self._not_here(visit.path)))
        elif visit.method == "GET":
            await serve_sse(self._hub, profile, root, visit)
        else:
            await visit.not_allowed(b"GET")

    async def _own(self, visit: HttpRequest) -> None:
        if visit.path in OWN and visit.method not in {"GET", "HEAD"}:
            await visit.not_allowed(b"GET, HEAD")
        elif visit.path == "/health/live":
            await visit.plain(200, jsonrpc.success({"status": "alive"}))
        elif visit.path == "/health/ready":
            await visit.plain(200, jsonrpc.success(server_info.ready(self._hub.status())))
        elif visit.path == "/metrics":
            calls = self._hub.calls
            await visit.text(metrics.render(calls.counts, calls.microseconds, self._hub.status()))
        else:
            await visit.plain(404, failure(INVALID_REQUEST, self._not_here(visit.path)))

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

    # --- POST -----------------------------------------------------------------------------------

    async def _decoded(self, visit: HttpRequest, profile: str | None = None) -> Envelope | None:
        """Read and decode the body; a batch, and what cannot be read in one way, is answered here."""
        try:
            body = await visit.body(self._hub.options.max_request_bytes)
            if not body.isascii():
                body.decode()
            if profile is not None and is_batch(body):
                await serve_batch(self._hub, profile, body, visit)
                return None
            message = decode_envelope(body)
            if (refused := ambiguity.refusal(body, message)) is None:
                return message
            await visit.reply(400, refused)
        except BodyTooLarge:
            await visit.plain(413, failure(INVALID_REQUEST, "The request is too large"))
        except msgspec.ValidationError:
            text = "Body must be a single JSON-RPC request, notification or response object"
            await visit.plain(400, failure(INVALID_REQUEST, text))
        except jsonrpc.MALFORMED:
            await visit.plain(400, failure(PARSE_ERROR, "Parse error"))
        return None

    async def _post(self, profile: str, visit: HttpRequest) -> None:
        message = await self._decoded(visit, profile)
        if message is None:
            return
        try:
            serving = self._taken(profile, message, visit)
        except jsonrpc.MALFORMED as error:
            answer = failure(jsonrpc.INVALID_PARAMS, f"Invalid params: {error}")
            serving = visit.reply(400, response(message.id, answer))
        await serving

    def _taken(self, profile: str, message: Envelope, visit: HttpRequest) -> Awaitable[None]:
        if (fault := _fault(visit.headers, message)) is not None:
            return visit.plain(*fault)
        if versions.is_modern(visit.headers, message):
            return self._post_modern(profile, message, visit)
        return self._post_handshake(profile, message, visit)

    def _post_modern(self, profile: str, message: Envelope, visit: HttpRequest) -> Awaitable[None]:
        if not message.is_request:
            return visit.empty(202)
        opened = versions.open_envelope(visit.headers, message)
        if isinstance(opened, Answer):
            return visit.reply(versions.status_of(opened), response(message.id, opened))
        if message.method == "subscriptions/listen":
            return listen(self._hub, profile, message, visit)
        exchange = PostResponse(
            visit,
            bytes(message.id),
            session=None,
            capabilities=opened.capabilities,
            log_level=opened.log_level,
            keepalive_s=self._hub.options.keepalive_s,
            alarms=self._hub.alarms,
            failed=self._failed,
        )
        repeats = BRIDGE not in visit.headers
        headers = tuple((k, v) for k, v in visit.headers.items() if k.startswith(PREFIX))
        params = bytes(message.params)
        request = ClientRequest(
            profile, message.method, params, exchange, None, True, headers, repeats=repeats
        )
        return self._run(request, exchange)

    def _post_handshake(
        self, profile: str, message: Envelope, visit: HttpRequest
    ) -> Awaitable[None]:
        identity = visit.headers.get("mcp-session-id")
        session = None if identity is None else self._hub.sessions.find(identity, profile)
        if identity is not None and session is None:
            answer = failure(jsonrpc.UPSTREAM_UNAVAILABLE, "Session not found")
            return visit.reply(404, response(message.id, answer))
        if not message.is_request:
            self._hub.took(profile, session, message)
            return visit.empty(202)
        if message.method == "initialize":
            session = self._hub.sessions.open(profile, bytes(message.params), visit.sender)
            answer = self._hub.hello(session)
            visit.extra = [(b"mcp-session-id", session.id.encode()), *visit.extra]
            return visit.reply(200, response(message.id, answer))
        exchange = PostResponse(
            visit,
            bytes(message.id),
            session=session,
            capabilities=b"{}" if session is None else session.capabilities,
            log_level="debug",
            keepalive_s=self._hub.options.keepalive_s,
            alarms=self._hub.alarms,
            failed=self._failed,
        )
        request = ClientRequest(profile, message.method, bytes(message.params), exchange, session)
        return self._run(request, exchange)

    async def _run(self, request: ClientRequest, exchange: PostResponse) -> None:
        """Handle a request until it is answered, cancelled by its client, or its client has left."""
        async with exchange.tasks:
            await self._answer(request, exchange)

    async def _answer(self, request: ClientRequest, exchange: PostResponse) -> None:
        began = time.perf_counter_ns()
        session, identity = request.session, exchange.identity
        answer: Answer | None = None
        if session is not None:
            session.running[identity] = exchange.cancel
        try:
            answer = await self._hub.router.handle(request)
        except asyncio.CancelledError:
            if self._hub.stopping or (session is None and not exchange.left):
                exchange.abandon()
                raise
            exchange.task.uncancel()
        finally:
            if session is not None:
                session.running.pop(identity, None)
            self._hub.finished(request, answer, began)
        if exchange.left:
            exchange.abandon()
            return
        answer = answer or failure(jsonrpc.CANCELLED, "Request cancelled")
        status = versions.status_of(answer) if request.modern else 200
        await exchange.finish(response(identity, answer), status)

    def _failed(self, error: Exception) -> None:
        self._hub.emit("task.failed", message=described(error))

    # --- GET and DELETE -------------------------------------------------------------------------

    async def _session_only(self, profile: str, visit: HttpRequest) -> None:
        identity = visit.headers.get("mcp-session-id")
        session = None if identity is None else self._hub.sessions.find(identity, profile)
        if identity is None:
            visit.extra = [(b"allow", b"POST"), *visit.extra]
            await visit.plain(405, failure(INVALID_REQUEST, "GET and DELETE need a session"))
        elif session is None:
            await visit.plain(404, failure(jsonrpc.UPSTREAM_UNAVAILABLE, "Session not found"))
        elif visit.method == "DELETE":
            self._hub.sessions.close(session)
            await visit.empty(200)
        elif not visit.streams:
            await visit.plain(406, failure(INVALID_REQUEST, "Accept text/event-stream"))
        else:
            await serve_stream(self._hub, session, visit)


def _fault(headers: Mapping[str, str], message: Envelope) -> tuple[int, Answer] | None:
    """Return the status and error of a message that cannot be served at all."""
    if (why := message.fault) is not None:
        return 400, failure(INVALID_REQUEST, why)
    kind = headers.get("content-type", JSON)
    if kind != JSON and kind.partition(";")[0].strip().lower() != JSON:
        return 415, failure(INVALID_REQUEST, "Content-Type must be application/json")
    version = headers.get("mcp-protocol-version")
    known = version is None or version in versions.HANDSHAKE or versions.is_modern(headers, message)
    if not known and message.method != "initialize":
        served = ", ".join((*versions.HANDSHAKE, *versions.MODERN))
        return 400, failure(INVALID_REQUEST, f"Unsupported protocol version {version}: {served}")
    return None
