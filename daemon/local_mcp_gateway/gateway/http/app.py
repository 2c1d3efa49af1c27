"""The ASGI application: Streamable HTTP in both protocols, legacy SSE, health and metrics.

`/mcp` and `/api/mcp/gateway` serve the default profile, `/mcp/NAME` and `/api/mcp/NAME` the named one.
This is a bare ASGI application without middleware, for speed.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from local_mcp_gateway.gateway.clients import (
    LIMITED,
    RETRY_AFTER,
    TokenRefused,
)
from local_mcp_gateway.gateway.http.endpoints import FOR_PEOPLE, OPEN, serve_builtin
from local_mcp_gateway.gateway.http.request import (
    BodyTooLarge,
    HttpRequest,
    OriginCheck,
    Receive,
    Scope,
    Send,
    profile_in,
)
from local_mcp_gateway.gateway.http.response import PostResponse, client_request
from local_mcp_gateway.gateway.http.streams import (
    listen,
    serve_batch,
    serve_sse,
    serve_stream,
    take,
)
from local_mcp_gateway.gateway.protocol import (
    INVALID_REQUEST,
    PARSE_ERROR,
    Answer,
    Envelope,
    Hops,
    ModernEnvelope,
    ambiguity,
    decode_envelope,
    failure,
    hops,
    is_batch,
    jsonrpc,
    response,
    versions,
)
from local_mcp_gateway.gateway.routing import (
    Broker,
    CallLog,
    Cancellation,
    Dispatcher,
    Registry,
)
from local_mcp_gateway.gateway.tasks import TimerWheel, described
from local_mcp_gateway.gateway.upstreams import CLIENT_HEADERS
from local_mcp_gateway.log import Throttle

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.clients import Admission, Session, Sessions
    from local_mcp_gateway.gateway.options import GatewayOptions
    from local_mcp_gateway.log import Emit

TICK_S: Final = 0.1
"""How late a timer of a response may fire."""
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class GatewayApp:
    """The ASGI application."""

    def __init__(
        self,
        options: GatewayOptions,
        registry: Registry,
        sessions: Sessions,
        dispatcher: Dispatcher,
        broker: Broker,
        calls: CallLog,
        admission: Admission,
        way: Hops,
        status: Callable[[], dict[str, Any]],
        emit: Emit,
    ) -> None:
        self._options = options
        self._origins = OriginCheck(options.allowed_hosts, options.allowed_origins)
        self._registry = registry
        self._sessions = sessions
        self._dispatcher = dispatcher
        self._broker = broker
        self._calls = calls
        self._admission = admission
        self._refusals = Throttle()
        """By the kind of refusal: anybody may send thousands of requests."""
        self._hops = way
        self._status = status
        self._emit = emit
        self._timers = TimerWheel(TICK_S)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request."""
        if scope["type"] == "http":
            await self._served(HttpRequest.of(scope, receive, send), scope.get("root_path", ""))

    # Routing is done inline: each further coroutine costs every call.

    def _served(self, http_request: HttpRequest, root: str) -> Awaitable[None]:
        if (why := self._origins.refusal(http_request.headers)) is not None:
            self._log_refusal("origin", why, http_request)
            http_request.extra = []
            return http_request.plain(403, failure(INVALID_REQUEST, why))
        if http_request.method == "OPTIONS":
            return http_request.empty(204)
        if not http_request.own:
            try:
                http_request.token = self._admission.admit(http_request.headers)
            except TokenRefused as refused:
                return self._not_admitted(http_request, str(refused))
        CLIENT_HEADERS.set(http_request.headers)
        if (via := http_request.headers.get(hops.HEADER)) is not None:
            return self._from_gateway(http_request, root, via)
        return self._routed(http_request, root)

    def _not_admitted(self, http_request: HttpRequest, why: str) -> Awaitable[None]:
        """Refuse a request so that its client shows the reason.

        A client without OAuth shows the message of the body. One with OAuth finds no metadata, tries to
        register, and shows what it is told there.
        """
        path = http_request.path
        if path in OPEN or path.startswith("/.well-known/"):
            return self._builtin_endpoint(http_request, admitted=False)
        self._log_refusal("token", why, http_request)
        said = why.replace("`", "'").encode()
        challenge = b'Bearer error="invalid_token", error_description="%s"' % said
        http_request.extra = [(b"www-authenticate", challenge), *http_request.extra]
        return self._refused_late(http_request, failure(INVALID_REQUEST, why))

    async def _refused_late(self, http_request: HttpRequest, answer: Answer) -> None:
        http_request.extra += await self._admission.hold()
        await http_request.plain(401, answer)

    def _log_refusal(self, kind: str, why: str, http_request: HttpRequest) -> None:
        repeated = self._refusals.repeated(kind, time.monotonic())
        if repeated is not None:
            more = {"repeated": repeated} if repeated else {}
            self._emit("call.refused", reason=why, path=http_request.path, **more)

    async def _from_gateway(self, http_request: HttpRequest, root: str, via: str) -> None:
        """Serve a request that came through another gateway; refuse it if it is a loop."""
        profile = self._profile(http_request)
        if profile is None:
            await self._routed(http_request, root)
        elif self._hops.comes_back(profile, via):
            self._log_refusal("loop", hops.REFUSAL, http_request)
            await http_request.plain(508, failure(INVALID_REQUEST, hops.REFUSAL))
        else:
            with self._hops.guest(profile, via):
                await self._routed(http_request, root)

    def _routed(self, http_request: HttpRequest, root: str) -> Awaitable[None]:
        if http_request.path.startswith(("/mcp", "/api/mcp")):
            return self._mcp(http_request)
        if http_request.path.startswith(("/sse", "/messages/")):
            return self._legacy(http_request, root)
        return self._builtin_endpoint(http_request)

    def _mcp(self, http_request: HttpRequest) -> Awaitable[None]:
        profile = self._profile(http_request)
        if profile is None:
            return http_request.plain(404, failure(INVALID_REQUEST, self._not_found(http_request)))
        if http_request.method == "POST":
            return self._post(profile, http_request)
        if http_request.headers.get("mcp-protocol-version") in versions.MODERN:
            return http_request.not_allowed(b"POST")
        if http_request.method in {"GET", "DELETE"}:
            return self._session_only(profile, http_request)
        return http_request.not_allowed(b"GET, POST, DELETE")

    async def _legacy(self, http_request: HttpRequest, root: str) -> None:
        """Serve the transport of 2024-11-05: a stream to GET, and messages to POST."""
        if http_request.path.startswith("/messages/") and http_request.method == "POST":
            identity = http_request.path.removeprefix("/messages/")
            session = self._sessions.of_stream(identity, http_request.token_id)
            if session is None or session.legacy_outbox is None:
                await http_request.plain(404, failure(INVALID_REQUEST, "Session not found"))
            elif (message := await self._decoded(http_request)) is None:
                return
            elif (fault := http_request.fault_of(message)) is not None:
                await http_request.refuse(message, *fault)
            else:
                await http_request.empty(202)
                take(self._dispatcher, session, session.legacy_outbox, message)
        elif (profile := self._profile(http_request)) is None:
            await http_request.plain(404, failure(INVALID_REQUEST, self._not_found(http_request)))
        elif http_request.method == "GET":
            await serve_sse(self._sessions, profile, root, http_request, self._options)
        else:
            await http_request.not_allowed(b"GET")

    def _builtin_endpoint(
        self, http_request: HttpRequest, *, admitted: bool = True
    ) -> Awaitable[None]:
        missing = self._not_found(http_request) if admitted else "Nothing is served here"
        return serve_builtin(http_request, self._calls, self._status, missing, admitted=admitted)

    def _profile(self, http_request: HttpRequest) -> str | None:
        named = profile_in(http_request.path)
        if named is None:
            return None
        profiles = self._registry.reachable(http_request.token)
        name = named or self._options.default_profile
        if not named and name not in profiles and len(profiles) == 1:
            return next(iter(profiles))  # the only stream needs no name
        return name if name in profiles else None

    def _not_found(self, http_request: HttpRequest) -> str:
        """Return the 404 message, which names the profiles: a mistyped profile is the usual cause."""
        path = http_request.path
        names = sorted(self._registry.reachable(http_request.token))
        if not names and http_request.token is not None and self._registry.profiles:
            return f"Nothing is served at {path}: the profiles of this token were removed"
        if not names:
            return (
                f"Nothing is served at {path}: there is no profile yet; add one with `server add`"
            )
        return f"Nothing is served at {path}; there is " + ", ".join(f"/mcp/{n}" for n in names)

    # --- POST -----------------------------------------------------------------------------------

    async def _decoded(
        self, http_request: HttpRequest, profile: str | None = None
    ) -> Envelope | None:
        """Read and decode the body; respond here to a batch and to malformed or ambiguous messages."""
        try:
            body = await http_request.body(self._options.max_request_bytes)
            self._admission.check_again(http_request.token)
            if not body.isascii():
                body.decode()
            if profile is not None and is_batch(body):
                identity = http_request.headers.get("mcp-session-id", "")
                session = self._sessions.find(identity, profile, http_request.token_id)
                await serve_batch(self._dispatcher, session, body, http_request)
                return None
            message = decode_envelope(body)
            if (refused := ambiguity(body, message)) is None:
                return message
            await http_request.reply(400, refused)
        except TokenRefused as refusal:
            await self._not_admitted(http_request, str(refusal))
        except BodyTooLarge:
            await http_request.plain(413, failure(INVALID_REQUEST, "The request is too large"))
        except msgspec.ValidationError:
            text = "Body must be a single JSON-RPC request, notification or response object"
            await http_request.plain(400, failure(INVALID_REQUEST, text))
        except jsonrpc.MALFORMED:
            await http_request.plain(400, failure(PARSE_ERROR, "Parse error"))
        return None

    async def _post(self, profile: str, http_request: HttpRequest) -> None:
        message = await self._decoded(http_request, profile)
        if message is None:
            return
        try:
            serving = self._dispatch(profile, message, http_request)
        except jsonrpc.MALFORMED as error:
            answer = failure(jsonrpc.INVALID_PARAMS, f"Invalid params: {error}")
            serving = http_request.reply(400, response(message.id, answer))
        await serving

    def _dispatch(
        self, profile: str, message: Envelope, http_request: HttpRequest
    ) -> Awaitable[None]:
        if (fault := http_request.fault_of(message)) is not None:
            return http_request.refuse(message, *fault)
        if http_request.is_stateless(message):
            return self._post_modern(profile, message, http_request)
        return self._post_handshake(profile, message, http_request)

    def _post_modern(
        self, profile: str, message: Envelope, http_request: HttpRequest
    ) -> Awaitable[None]:
        if not message.is_request:
            return http_request.empty(202)
        opened = versions.open_envelope(http_request.headers, message)
        if isinstance(opened, Answer):
            return http_request.reply(versions.status_of(opened), response(message.id, opened))
        if message.method == "subscriptions/listen":
            keepalive_s = self._options.keepalive_s
            return listen(self._broker, profile, message, http_request, keepalive_s)
        return self._run(profile, message, http_request, None, opened)

    def _post_handshake(
        self, profile: str, message: Envelope, http_request: HttpRequest
    ) -> Awaitable[None]:
        identity = http_request.headers.get("mcp-session-id")
        session = self._session_of(identity, profile, http_request)
        if identity is not None and session is None and message.method != "initialize":
            answer = failure(jsonrpc.UPSTREAM_UNAVAILABLE, "Session not found")
            return http_request.reply(404, response(message.id, answer))
        if not message.is_request:
            self._dispatcher.on_notification(profile, session, message, http_request.token_id)
            return http_request.empty(202)
        if message.method == "initialize":
            sender, token = http_request.sender, http_request.token_id
            session = self._sessions.open(profile, bytes(message.params), sender, token)
            return self._initialize(session, bytes(message.id), http_request)
        return self._run(profile, message, http_request, session, None)

    async def _initialize(
        self, session: Session, identity: bytes, http_request: HttpRequest
    ) -> None:
        answer = await self._dispatcher.initialize(session)
        http_request.extra = [(b"mcp-session-id", session.id.encode()), *http_request.extra]
        await http_request.reply(200, response(identity, answer))

    async def _run(
        self,
        profile: str,
        message: Envelope,
        http_request: HttpRequest,
        session: Session | None,
        opened: ModernEnvelope | None,
    ) -> None:
        """Handle a request until it has its response, its client cancels it, or its client disconnects."""
        identity = bytes(message.id)
        cancellation = Cancellation()
        reply = PostResponse(
            http_request,
            identity,
            session,
            cancellation,
            keepalive_s=self._options.keepalive_s,
            timers=self._timers,
            failed=self._failed,
        )
        token = http_request.token if session is None else None
        if token is not None:
            self._admission.begin(token, cancellation.end)
        async with reply.tasks:
            try:
                request = client_request(profile, message, http_request, session, opened, reply)
                answer = await self._dispatcher.answer(request, cancellation)
                if answer is None:
                    await reply.finish_unanswered()
                elif not reply.left:
                    status = 200 if opened is None else versions.status_of(answer)
                    if answer.failed and versions.error_code(answer) == LIMITED:
                        status = 429
                        wait_s = jsonrpc.member(jsonrpc.member(answer.body, "data"), RETRY_AFTER)
                        http_request.extra = [(b"retry-after", wait_s), *http_request.extra]
                    await reply.finish(response(identity, answer), status)
            finally:
                reply.close()
                if token is not None:
                    self._admission.finish(token, cancellation.end)

    def _session_of(
        self, identity: str | None, profile: str, http_request: HttpRequest
    ) -> Session | None:
        if identity is None:
            return None
        return self._sessions.find(identity, profile, http_request.token_id)

    def _failed(self, error: Exception) -> None:
        self._emit("task.failed", message=described(error))

    # --- GET and DELETE -------------------------------------------------------------------------

    async def _session_only(self, profile: str, http_request: HttpRequest) -> None:
        identity = http_request.headers.get("mcp-session-id")
        session = self._session_of(identity, profile, http_request)
        if identity is None and "text/html" in http_request.headers.get("accept", ""):
            http_request.extra = [(b"x-frame-options", b"DENY"), *http_request.extra]
            await http_request.text(FOR_PEOPLE, b"text/html; charset=utf-8")
        elif identity is None:
            http_request.extra = [(b"allow", b"POST"), *http_request.extra]
            await http_request.plain(405, failure(INVALID_REQUEST, "GET and DELETE need a session"))
        elif session is None:
            await http_request.plain(
                404, failure(jsonrpc.UPSTREAM_UNAVAILABLE, "Session not found")
            )
        elif http_request.method == "DELETE":
            self._sessions.close(session)
            await http_request.empty(200)
        elif not (http_request.streams or http_request.takes_anything):
            await http_request.plain(406, failure(INVALID_REQUEST, "Accept text/event-stream"))
        else:
            await serve_stream(session, http_request, self._options.keepalive_s)
