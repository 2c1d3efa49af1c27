"""The trace that an HTTP request belongs to, read from its headers. Imported only where traces are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import context, propagate

from local_mcp_gateway.gateway.routing.tracing import CARRIED

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.http.app import Application
    from local_mcp_gateway.gateway.http.request import Receive, Scope, Send


def traced(app: Application) -> Application:
    """Take the trace of each HTTP request from its headers, for what the router does in it."""

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
