"""Spans of what passes, and the trace of the client that goes on at the server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id

from tests.gateway.messages import META as ENVELOPE
from tests.gateway.messages import MODERN, call
from tests.gateway.support import SERVERS, gateway_of, http, process, stdio
from tests.gateway.using import use

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
META = {"_meta": {"traceparent": PARENT, "tracestate": "a=b", "theirs": 1}}
PROVIDER = TracerProvider(shutdown_on_exit=False)
EXPORTER = InMemorySpanExporter()
PROVIDER.add_span_processor(SimpleSpanProcessor(EXPORTER))
TRACER = PROVIDER.get_tracer("test")


@pytest.fixture(autouse=True)
def fresh() -> None:
    EXPORTER.clear()


def spans() -> tuple[ReadableSpan, ReadableSpan]:
    """Return the client's request and the one to the server below it."""
    below, above = EXPORTER.get_finished_spans()
    assert (above.kind, below.kind) == (SpanKind.SERVER, SpanKind.CLIENT)
    assert below.parent is not None
    assert above.context is not None
    assert below.parent.span_id == above.context.span_id
    return above, below


def identity(span: ReadableSpan) -> str:
    assert span.context is not None
    trace, own = format_trace_id(span.context.trace_id), format_span_id(span.context.span_id)
    return f"00-{trace}-{own}-01"


async def test_the_trace_in_meta_goes_on_at_a_stdio_server(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py"), tracer=TRACER) as running:
        message = call("tools/call", name="raw", arguments={"n": 1}, **META)
        body = await (await running.post(message)).json()
        received = json.loads(body["result"]["content"][0]["text"])["params"]
        above, below = spans()
        assert above.parent is not None
        assert format_span_id(above.parent.span_id) == SPAN
        meta = {"traceparent": identity(below), "tracestate": "a=b", "theirs": 1}
        assert received == {"name": "raw", "arguments": {"n": 1}, "_meta": meta}
        assert above.name == "tools/call raw"
        assert dict(above.attributes or {}) == {
            "mcp.method.name": "tools/call",
            "local_mcp_gateway.profile": "default",
            "gen_ai.tool.name": "raw",
        }
        assert (below.attributes or {})["local_mcp_gateway.server"] == "plain"


async def test_the_trace_in_the_headers_goes_on_at_an_http_server(tmp_path: Path) -> None:
    async with process(SERVERS / "plain_http.py") as (_, url):
        async with gateway_of(tmp_path, http("web", url), tracer=TRACER) as running:
            message = call("tools/call", name="headers", arguments={})
            body = await (await running.post(message, traceparent=PARENT)).json()
            received = json.loads(body["result"]["content"][0]["text"])
            above, below = spans()
            assert above.parent is not None
            assert format_span_id(above.parent.span_id) == SPAN
            assert received["traceparent"] == identity(below)


async def test_a_stateless_client_keeps_its_trace_at_a_handshake_server(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py"), tracer=TRACER) as running:
        meta = {**ENVELOPE, "traceparent": PARENT}
        message = call("tools/call", name="raw", arguments={}, _meta=meta)
        headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Mcp-Name": "raw"}
        body = await (await running.post(message, **headers)).json()
        received = json.loads(body["result"]["content"][0]["text"])["params"]["_meta"]
        assert received == {"traceparent": identity(spans()[1])}


async def test_an_error_is_an_error_of_both_spans_with_its_code(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py"), tracer=TRACER) as running:
        assert (await use(running, "fail"))["code"] == -32050
        for span in spans():
            assert span.status.status_code is StatusCode.ERROR
            assert (span.attributes or {})["error.type"] == "-32050"


@pytest.mark.parametrize("meta", [{"traceparent": 5}, {"traceparent": "00-zz"}, "nonsense", None])
async def test_a_trace_that_is_none_begins_a_new_one(tmp_path: Path, meta: Any) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py"), tracer=TRACER) as running:
        reply = await running.post(call("tools/list", _meta=meta))
        assert "tools" in (await reply.json())["result"]
        (span,) = EXPORTER.get_finished_spans()
        assert span.parent is None
