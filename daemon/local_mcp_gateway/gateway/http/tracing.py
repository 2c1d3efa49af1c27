"""Read the OpenTelemetry parent of an HTTP request from its headers. Imported only with tracing on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import context, propagate

from local_mcp_gateway.gateway.routing.tracing import CARRIED

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.http.app import Application
    from local_mcp_gateway.gateway.http.request import Receive, Scope, Send


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
