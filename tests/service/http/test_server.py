"""A request head has an end; at a stop, calls may finish, streams end and children are gone."""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import socket
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

import pytest

from local_mcp_gateway.service.http import LibraryWarnings
from tests.harness import DEADLINE_S, GatewayProcess, Place

SERVER = Path(__file__).with_name("waiting_server.py")


@dataclass(frozen=True, slots=True)
class InFlight:
    """A gateway with one call that does not return before `go`."""

    place: Place
    gateway: GatewayProcess
    outcome: list[Any]
    client: threading.Thread
    pipe: int

    def go(self) -> None:
        os.write(self.pipe, b"go\n")


def post(url: str, method: str, params: dict[str, Any]) -> HTTPResponse:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    response = urllib.request.urlopen(request, timeout=60)
    assert isinstance(response, HTTPResponse)
    return response


def answer_in(text: str) -> Any:
    """Return the JSON answer, or the one in the last event of a stream."""
    lines = [line.removeprefix("data:") for line in text.splitlines() if line.startswith("data:")]
    return json.loads(lines[-1] if lines else text)


@contextmanager
def pipe(path: Path) -> Iterator[int]:
    """Open both sides of a named pipe, so that neither waits for the other."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.fixture
def drain_timeout_s() -> float:
    return 3600


@pytest.fixture
def in_flight(shipped: Place, drain_timeout_s: float) -> Iterator[InFlight]:
    command = (sys.executable, str(SERVER), str(shipped.root))
    shipped.run("server", "add", "waiting", "--profile", "p", "--", *command)
    for name in ("held", "go"):
        os.mkfifo(shipped.root / name)
    environment = {"LMG_GATEWAY__DRAIN_TIMEOUT_S": str(drain_timeout_s)}
    with shipped.serve(env=environment) as gateway:
        gateway.wait_ready()
        outcome: list[Any] = []

        def call() -> None:
            try:
                with post(
                    gateway.url + "/mcp/p", "tools/call", {"name": "hold", "arguments": {}}
                ) as r:
                    outcome.append(answer_in(r.read().decode()))
            except HTTPError as error:
                with error:  # it holds the connection
                    outcome.append((error.code, json.load(error)["error"]["message"]))
            except (OSError, HTTPException) as error:
                outcome.append(error)

        client = threading.Thread(target=call)
        client.start()
        with pipe(shipped.root / "held") as held, pipe(shipped.root / "go") as go:
            assert select.select([held], [], [], DEADLINE_S)[0], "the call did not come there"
            yield InFlight(shipped, gateway, outcome, client, go)
            client.join()


def test_a_call_in_flight_finishes_and_is_answered_before_the_process_ends(
    in_flight: InFlight,
) -> None:
    in_flight.gateway.signal(signal.SIGTERM)
    in_flight.gateway.wait_for("service.stopping")
    in_flight.go()
    assert in_flight.gateway.wait() == 0
    in_flight.client.join()
    assert in_flight.outcome[0]["result"] == {"content": [{"type": "text", "text": "went"}]}


def test_whoever_asks_a_second_time_does_not_wait_for_the_call_which_is_told(
    in_flight: InFlight,
) -> None:
    in_flight.gateway.signal(signal.SIGTERM)
    in_flight.gateway.wait_for("service.stopping")
    in_flight.gateway.signal(signal.SIGTERM)
    assert in_flight.gateway.wait() == 0
    in_flight.client.join()
    assert in_flight.outcome == [(503, "The gateway is stopping.")]
    assert "library.warned" not in in_flight.gateway.names()


@pytest.mark.parametrize("drain_timeout_s", [0.2])
def test_a_call_that_does_not_end_in_time_is_told_too(in_flight: InFlight) -> None:
    assert in_flight.gateway.stop() == 0
    in_flight.client.join()
    assert in_flight.outcome == [(503, "The gateway is stopping.")]
    warned = [e for e in in_flight.gateway.events if e["event"] == "library.warned"]
    assert not any("traceback" in event for event in warned)


def test_the_servers_that_it_started_are_gone_with_it(in_flight: InFlight) -> None:
    connected = in_flight.gateway.wait_for("upstream.connected")
    assert Path(f"/proc/{connected['pid']}").exists()
    in_flight.go()
    assert in_flight.gateway.stop() == 0
    assert not Path(f"/proc/{connected['pid']}").exists()


def test_a_stream_that_only_waits_does_not_hold_the_stop(shipped: Place) -> None:
    shipped.run("profile", "add", "p")
    with shipped.serve(env={"LMG_GATEWAY__DRAIN_TIMEOUT_S": "3600"}) as gateway:
        url = gateway.wait_ready().url + "/mcp/p"
        hello = {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "t", "version": "1"},
        }
        with post(url, "initialize", hello) as response:
            session = response.headers["mcp-session-id"]
        headers = {"Accept": "text/event-stream", "mcp-session-id": session}
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=60) as stream:
            assert gateway.stop() == 0
            assert stream.read() == b""
    assert "library.warned" not in gateway.names()


START = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"
MIB = 1024 * 1024


@pytest.fixture
def client(gateway_process: GatewayProcess) -> socket.socket:
    address = urlsplit(gateway_process.url)
    client = socket.create_connection((address.hostname or "", address.port or 0), 30)
    client.settimeout(30)
    return client


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (START, b"X: y\r\n" * 10_000),
        (START + b"X: ", b"y" * 60_000),
        (b"GET /", b"y" * 60_000),
    ],
)
def test_a_head_without_end_is_cut_off(client: socket.socket, start: bytes, more: bytes) -> None:
    with client:
        client.sendall(start)
        with pytest.raises(ConnectionError):
            pour(client, more)


def pour(client: socket.socket, more: bytes) -> None:
    """Send 64 MiB of it: more than the buffers of two sockets hold."""
    for _ in range(64 * MIB // len(more)):
        client.sendall(more)


def test_a_large_head_passes_and_so_does_the_next_request(client: socket.socket) -> None:
    with client:
        for _ in range(3):
            client.sendall(START + b"X: " + b"y" * (MIB // 2) + b"\r\n\r\n")
            answer = b""
            while b'"alive"}' not in answer:
                part = client.recv(65536)
                assert part
                answer += part
            assert answer.startswith(b"HTTP/1.1 200")


def test_a_warning_that_cannot_be_formatted_raises_nothing_into_its_library(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told: list[object] = []
    warnings = LibraryWarnings(lambda _, **fields: told.append(fields["message"]))
    for args in (("x",), (7,)):
        warnings.handle(logging.makeLogRecord({"msg": "%d files", "args": args}))
    assert told == ["7 files"]
    assert "'%d files'" in capsys.readouterr().err
