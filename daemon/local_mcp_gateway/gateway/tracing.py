"""OpenTelemetry tracing: a router that records spans, and their parents. Imported only with tracing on.

Each client request is a span of kind SERVER; each request to an upstream below it is one of kind
CLIENT. Trace context is propagated as MCP defines it: `traceparent`, `tracestate` and `baggage` in
`params._meta`, and over HTTP in the headers of the same names; `_meta` wins. Names and attributes
follow OpenTelemetry's conventions for MCP. Arguments and results are never recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Final

from opentelemetry import context, propagate, trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from local_mcp_gateway.gateway.protocol import (
    Answer,
    decode_any,
    decode_members,
    edit,
    encode,
    member,
    versions,
)
from local_mcp_gateway.gateway.routing import ClientRequest, Registry, Router, Sharing, Subscribers

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from local_mcp_gateway.gateway.catalog import Route
    from local_mcp_gateway.gateway.clients import Sessions
    from local_mcp_gateway.gateway.http import Application, Receive, Scope, Send
    from local_mcp_gateway.gateway.tasks import TaskScope

CARRIED: Final = ("traceparent", "tracestate", "baggage")
TARGETS: Final = {
    "tools/call": "gen_ai.tool.name",
    "prompts/get": "gen_ai.prompt.name",
    "resources/read": "mcp.resource.uri",
}


class TracedRouter(Router):
    """Handles requests as the router does, and records spans."""

    def __init__(
        self,
        registry: Registry,
        sessions: Sessions,
        subscribers: Subscribers,
        sharing: Sharing,
        tasks: TaskScope,
        tracer: trace.Tracer,
    ) -> None:
        super().__init__(registry, sessions, subscribers, sharing, tasks)
        self._tracer = tracer

    async def handle(self, request: ClientRequest) -> Answer:
        """Handle one request inside a span."""
        with self._tracer.start_as_current_span(
            request.method,
            _parent(request.params),
            SpanKind.SERVER,
            {"mcp.method.name": request.method, "local_mcp_gateway.profile": request.profile},
        ) as span:
            answer = await _observed(span, super().handle(request))
            if request.target is not None:
                span.update_name(f"{request.method} {request.target}")
                if request.method in TARGETS:
                    span.set_attribute(TARGETS[request.method], request.target)
            return answer

    async def _forward(
        self, request: ClientRequest, route: Route, params: bytes, *, whole: bool = False
    ) -> Answer:
        attributes = {"mcp.method.name": request.method, "local_mcp_gateway.server": route.server}
        if request.method in TARGETS:
            attributes[TARGETS[request.method]] = route.key
        name = f"{request.method} {route.key}"
        with self._tracer.start_as_current_span(
            name, kind=SpanKind.CLIENT, attributes=attributes
        ) as span:
            carrier: dict[str, str] = {}
            propagate.inject(carrier)
            meta = edit(
                member(params, "_meta") or b"{}", {k: encode(v) for k, v in carrier.items()}
            )
            request.headers = (*request.headers, *carrier.items())
            forwarding = super()._forward(
                request, route, edit(params or b"{}", {"_meta": meta}), whole=whole
            )
            return await _observed(span, forwarding)


def _parent(params: bytes) -> Context | None:
    """Return the parent that a request names in its `_meta`; None: use the one of its headers."""
    meta = member(params, "_meta") if b"traceparent" in params else b""
    if not meta:
        return None
    members = decode_members(meta)
    found = {name: decode_any(members[name]) for name in CARRIED if name in members}
    return propagate.extract({name: value for name, value in found.items() if type(value) is str})


async def _observed(span: trace.Span, answering: Coroutine[None, None, Answer]) -> Answer:
    """Wait for a response and record its outcome in the span."""
    try:
        answer = await answering
    except asyncio.CancelledError:
        span.set_attribute("error.type", "cancelled")
        raise
    if answer.failed:
        code = str(versions.error_code(answer))
        span.set_attributes({"error.type": code, "rpc.response.status_code": code})
        span.set_status(Status(StatusCode.ERROR))
    return answer


def traced(app: Application) -> Application:
    """Attach the trace context of each request's headers, for the router's spans."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        carrier = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in scope.get("headers", ())
            if name.decode("latin-1") in CARRIED
        }
        token = context.attach(propagate.extract(carrier))
        try:
            await app(scope, receive, send)
        finally:
            context.detach(token)

    return serve
