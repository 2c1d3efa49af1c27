"""Send traces to an OpenTelemetry receiver, if one is set; only then is OpenTelemetry imported."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from local_mcp_gateway import __version__
from local_mcp_gateway.errors import ConfigProblem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from opentelemetry.trace import Tracer

FLUSH_S: Final = 5.0
"""Longest wait for the receiver at a stop."""


@asynccontextmanager
async def tracing(otlp_endpoint: str) -> AsyncIterator[Tracer | None]:
    """Yield the tracer, or None when no endpoint is set; flush on exit.

    OpenTelemetry's environment variables (headers, sampling, batches) apply in addition to the endpoint.
    """
    if not otlp_endpoint:
        yield None
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigProblem(
            f"telemetry.otlp_endpoint is set, but OpenTelemetry is not installed ({error.name}).",
            hint="`pip install 'local-mcp-gateway[otel]'`, or leave telemetry.otlp_endpoint empty.",
        ) from None
    name = os.environ.get("OTEL_SERVICE_NAME", "local-mcp-gateway")
    resource = Resource.create({"service.name": name, "service.version": __version__})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=otlp_endpoint.rstrip("/") + "/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield provider.get_tracer("local_mcp_gateway", __version__)
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(FLUSH_S):
            await anyio.to_thread.run_sync(provider.shutdown, abandon_on_cancel=True)
