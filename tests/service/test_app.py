"""The running service, as its traces show it at a real receiver of OTLP over HTTP."""

from __future__ import annotations

import json
import queue
import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.harness import REPOSITORY, Place

PLAIN = REPOSITORY / "tests" / "gateway" / "servers" / "plain.py"


@pytest.fixture
def receiver() -> Iterator[tuple[str, queue.Queue[ExportTraceServiceRequest]]]:
    arrived: queue.Queue[ExportTraceServiceRequest] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            arrived.put(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", arrived
        server.shutdown()


def test_what_was_traced_has_arrived_when_the_service_has_stopped(
    shipped: Place, receiver: tuple[str, queue.Queue[ExportTraceServiceRequest]]
) -> None:
    url, arrived = receiver
    shipped.run("server", "add", "plain", "--", sys.executable, str(PLAIN))
    environment = {"LMG_TELEMETRY__OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "600000"}
    with shipped.serve(env=environment) as gateway:
        gateway.wait_ready()
        params = {"name": "echo", "arguments": {"secret": "s3cret"}}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(
            gateway.url + "/mcp", json.dumps(message).encode(), headers
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            assert "result" in json.load(reply)
        assert gateway.stop() == 0
    sent = arrived.get(timeout=30)
    (resource,) = sent.resource_spans
    who = {item.key: item.value.string_value for item in resource.resource.attributes}
    assert who["service.name"] == "local-mcp-gateway"
    (scope,) = resource.scope_spans
    below, above = scope.spans
    assert (below.name, above.name) == ("tools/call echo", "tools/call echo")
    assert (below.trace_id, below.parent_span_id) == (above.trace_id, above.span_id)
    assert b"s3cret" not in sent.SerializeToString()


def test_a_receiver_that_is_not_there_keeps_nobody_from_serving_or_stopping(shipped: Place) -> None:
    environment = {"LMG_TELEMETRY__OTLP_ENDPOINT": "http://127.0.0.1:9"}
    with shipped.serve(env=environment) as gateway:
        gateway.wait_ready()
        with urllib.request.urlopen(gateway.url + "/health/live", timeout=30) as reply:
            assert reply.status == 200
        assert gateway.stop() == 0


def test_without_the_extra_the_setting_is_refused_with_what_to_install(
    shipped: Place, tmp_path: Path
) -> None:
    hidden = tmp_path / "hidden" / "opentelemetry"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").touch()  # stands before the installed one, and holds nothing
    environment = {
        "LMG_TELEMETRY__OTLP_ENDPOINT": "http://127.0.0.1:4318",
        "PYTHONPATH": str(hidden.parent),
    }
    with shipped.serve(env=environment) as gateway:
        refused = gateway.wait_for("service.refused")
        assert gateway.wait() == 7
    assert "OpenTelemetry is not installed" in refused["message"]
    assert "local-mcp-gateway[otel]" in refused["hint"]
