"""What a request says about itself, and from where it may come."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from multidict import CIMultiDict

from tests.gateway.messages import HELLO, call
from tests.gateway.support import Running, gateway_of, stdio


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        yield running


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "evil.example:3001"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"host": "127.0.0.1.evil.example"},
    ],
)
async def test_a_foreign_host_or_origin_is_refused(
    running: Running, headers: dict[str, str]
) -> None:
    reply = await running.post(call("ping"), **headers)
    assert reply.status == 403
    assert (await running.heard("call.refused"))["path"] == "/mcp"


async def test_a_page_of_this_machine_is_answered_with_cors_headers(running: Running) -> None:
    reply = await running.post(HELLO, origin="http://localhost:6274")
    assert reply.headers["access-control-allow-origin"] == "http://localhost:6274"
    assert "mcp-session-id" in reply.headers["access-control-expose-headers"]
    async with running.http.options(
        running.url, headers={"Origin": "http://localhost:6274"}
    ) as preflight:
        assert preflight.status == 204


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("application/json, text/event-stream", "text/event-stream"),
        ("Text/Event-Stream;q=0.5, application/json", "text/event-stream"),
        ("text/event-stream;q=0, application/json", "application/json"),
        ("text/event-stream; q=0.00", "application/json"),
        ("*/*", "application/json"),
        ("", "application/json"),
    ],
)
async def test_a_client_is_sent_a_stream_only_if_it_takes_one(
    running: Running, accept: str, kind: str
) -> None:
    used = call("tools/call", name="progress", _meta={"progressToken": 1})
    headers = {"Accept": accept}
    async with running.http.post(running.url, json=used, headers=headers) as reply:
        assert reply.content_type == kind


async def first_line(running: Running, *headers: str, body: str = "") -> bytes:
    """Say this of a POST, send so much of its body, and return what is answered first."""
    port = int(running.url.rpartition(":")[2].partition("/")[0])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write("\r\n".join(("POST /mcp HTTP/1.1", *headers, "", body)).encode())
    with anyio.fail_after(20):
        line = await reader.readline()
    writer.close()
    return line


async def test_what_is_sent_twice_counts_as_one_list(running: Running) -> None:
    twice = await first_line(running, "Host: evil.example", "Host: localhost", "Content-Length: 1")
    assert twice.startswith(b"HTTP/1.1 403")
    used = call("tools/call", name="progress", _meta={"progressToken": 1})
    accepted = CIMultiDict([("Accept", "text/event-stream"), ("Accept", "application/json")])
    async with running.http.post(running.url, json=used, headers=accepted) as reply:
        assert reply.content_type == "text/event-stream"


@pytest.mark.parametrize(
    ("named", "status"),
    [
        (["Host: localhost"], b"200"),
        (["Host: 127.0.0.1:3001", "Origin: http://localhost:8080"], b"200"),
        (["Host: [::1]:3001", "Origin: http://[::1]"], b"200"),
        (["Host: LOCALHOST:"], b"200"),
        (["Host: evil.com@127.0.0.1"], b"403"),
        (["Host: evil.com:80@127.0.0.1"], b"403"),
        (["Host: 127.0.0.1/evil.com"], b"403"),
        (["Host: 127.0.0.1#evil.com"], b"403"),
        (["Host: evil.com\\@127.0.0.1"], b"403"),
        (["Host: [::1"], b"403"),
        (["Host: 127.0.0.1:x"], b"403"),
        (["Host: 127.0.0.1.evil.com"], b"403"),
        (["Host: localhost", "Origin: http://evil.com@127.0.0.1"], b"403"),
        (["Host: localhost", "Origin: http://127.0.0.1:80/evil"], b"403"),
        (["Host: localhost", "Origin: file://127.0.0.1"], b"403"),
        (["Host: localhost", "Origin: null"], b"403"),
        (["Host:"], b"403"),
        ([], b"403"),
    ],
)
async def test_only_a_request_that_names_this_machine_is_served(
    running: Running, named: list[str], status: bytes
) -> None:
    ping = json.dumps(call("ping"))
    length = f"Content-Length: {len(ping)}"
    assert (await first_line(running, *named, length, body=ping)).split()[1] == status


async def test_a_body_that_says_that_it_is_too_large_is_not_waited_for(running: Running) -> None:
    large = await first_line(running, "Host: localhost", f"Content-Length: {10**9}")
    assert large.startswith(b"HTTP/1.1 413")
