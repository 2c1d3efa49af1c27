"""The head of a request has an end, in a real daemon."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import pytest

from tests.harness import GatewayProcess

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
