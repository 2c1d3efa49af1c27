"""A server over HTTP that answers a call with any bytes, and may close the connection then."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.messages import call
from tests.gateway.support import QUICK, Running, gateway_of, http

JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
ANSWER = b'data: {"jsonrpc":"2.0","id":ID,"result":{"content":[]}}\n\n'
SECRET = "of-nobody-else"


def answered(identity: Any, **members: Any) -> bytes:
    body = json.dumps({"jsonrpc": "2.0", "id": identity, **members}).encode()
    return JSON + b"Content-Length: %d\r\n\r\n" % len(body) + body


@asynccontextmanager
async def raw(tmp_path: Path) -> AsyncIterator[Running]:
    """Serve a gateway before a server whose one tool answers with the bytes that it is given; ID is the call's."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            lines = head.lower().split(b"\r\n")
            length = next(
                (line[15:] for line in lines if line.startswith(b"content-length:")), b"0"
            )
            body = await reader.readexactly(int(length))
            message = json.loads(body) if body else {}
            identity, method = message.get("id"), message.get("method")
            if method == "tools/call":
                told = bytes.fromhex(message["params"]["arguments"]["hex"])
                writer.write(told.replace(b"ID", json.dumps(identity).encode()))
                await writer.drain()
                break
            if method == "initialize":
                known = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}}
                writer.write(answered(identity, result={**known, "serverInfo": {"name": "raw"}}))
            elif method == "tools/list":
                tools = [{"name": "write", "inputSchema": {"type": "object"}}]
                writer.write(answered(identity, result={"tools": tools}))
            elif method is None or identity is None:
                status = b"405" if method is None else b"202"
                writer.write(b"HTTP/1.1 %s X\r\nContent-Length: 0\r\n\r\n" % status)
            else:
                writer.write(answered(identity, error={"code": -32601, "message": "no"}))
        writer.close()

    async def quietly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async with await asyncio.start_server(quietly, "127.0.0.1", 0) as server:
        url = "http://{}:{}/mcp?key={}".format(*server.sockets[0].getsockname(), SECRET)
        options = replace(QUICK, max_message_bytes=2_000_000)
        async with gateway_of(tmp_path, http("raw", url), options=options) as running:
            yield running


async def use(running: Running, told: bytes) -> Any:
    message = call("tools/call", name="write", arguments={"hex": told.hex()})
    reply = await running.post(message)
    text = await reply.text()
    assert (reply.status, SECRET in text) == (200, False), text
    answer = json.loads(text[text.rindex('{"jsonrpc"') :])
    return answer["error"]["message"] if "error" in answer else answer["result"]


def origin(running: Running) -> str:
    url = running.gateway.registry.upstreams["raw"].definition.url or ""
    return url.partition("/mcp")[0]


def status(line: bytes, body: bytes, headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s" % (line, headers, len(body), body)


async def test_what_is_wrong_with_an_answer_is_said_in_words(tmp_path: Path) -> None:
    async with raw(tmp_path) as running:
        for told, said in (
            (JSON + b"Content-Length: 50\r\n\r\n", "it broke off its answer"),
            (JSON + b"Content-Length: 50\r\n\r\n{", "it broke off its answer"),
            (JSON + b"Transfer-Encoding: chunked\r\n\r\n50\r\n{", "it broke off its answer"),
            (b"HTTP/1.1 200 OK\r\nConte", "it closed the connection without an answer"),
            (b"", "it closed the connection without an answer"),
            (
                b"\0\1nonsense\r\n\r\n",
                "it answered with something that is not HTTP: Bad status line",
            ),
            (
                b"HTTP/1.1 302 F\r\nLocation: http://x/\x1b[31m\r\nContent-Length: 0\r\n\r\n",
                "it redirects to http://x/\ufffd[31m: give that URL, if you trust it",
            ),
            (status(b"202 A", b""), "it answered HTTP 202 without a response"),
            (status(b"304 N", b""), "it answered HTTP 304 without a response"),
            (
                status(b"200 OK", b"<p>Sign in", b"Content-Type: text/html\r\n"),
                "its response (text/html) is not valid JSON-RPC",
            ),
            (
                status(b"429 T", b"slow\n down", b"Retry-After: 7\r\n"),
                "it answered HTTP 429 (Retry-After: 7): slow down",
            ),
            (
                status(b"502 B", b"<html>", b"Content-Type: text/html\r\n"),
                "it answered HTTP 502",
            ),
            (STREAM + b"data: {\n\n", "it sent an event that is not valid JSON-RPC"),
            (
                status(b"302 F", b"", b"Location: /real/\r\n"),
                f"it redirects to {origin(running)}/real/: give that URL, if you trust it",
            ),
        ):
            assert (await use(running, told)).endswith(f"is not available: {said}"), told


@pytest.mark.parametrize(
    "before",
    [
        b"\xef\xbb\xbf",
        b"event: ping\ndata: 12:00\n\n",
        b": talk\n\n:\nretry: 5\n\nretry: x\n\n",
        b'id: \x01\x7f\ndata: {"jsonrpc":"2.0","method":"notifications/x"}\n\n',
        b"id: \x1f\ndata:\n\n",
    ],
)
async def test_what_stands_before_an_answer_in_its_stream_is_passed_over(
    tmp_path: Path, before: bytes
) -> None:
    async with raw(tmp_path) as running:
        assert await use(running, STREAM + before + ANSWER) == {"content": []}
        broken = await use(running, STREAM + before)
        assert broken.endswith("it ended its stream without an answer")


async def test_an_answer_is_taken_as_the_official_clients_take_it(tmp_path: Path) -> None:
    long = b"X-Policy: %s\r\n" % (b"a" * 20_000)
    error = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"unread"}}'
    async with raw(tmp_path) as running:
        for told in (
            STREAM + ANSWER.replace(b"ID", b'"ID"'),
            STREAM + ANSWER.replace(b"ID", b"ID.0"),
            STREAM + b"data: [DONE]\n\ndata: {\n\n" + ANSWER,
            STREAM.replace(b"Connection", long + b"Connection") + ANSWER,
        ):
            assert await use(running, told) == {"content": []}, told
        assert await use(running, STREAM + b"data: " + error + b"\n\n") == "unread"
