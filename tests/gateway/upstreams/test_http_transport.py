"""The answers and streams of servers over HTTP, as a client gets them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.gateway.messages import call
from tests.gateway.support import gateway_of, http, serve, stdio
from tests.gateway.upstreams.odd_http import JSON, STREAM, Odd, odd
from tests.gateway.using import session, use


async def test_a_packed_answer_is_unpacked_and_counted_as_it_is_unpacked(tmp_path: Path) -> None:
    async with odd(tmp_path, max_message_bytes=1_000_000) as (_, running):
        assert await use(running, "packed", bytes=1000) == "x" * 1000
        whole = call("tools/call", name="packed", arguments={"bytes": 100_000_000})
        opened = await running.post({**HELLO_2025_03, "id": 1})
        headers = {"mcp_session_id": opened.headers["mcp-session-id"]}
        (answer,) = await (await running.post([whole], **headers)).json()  # a batch is held
        assert "larger than 1000000 bytes" in answer["error"]["message"]


HELLO_2025_03 = call(
    "initialize",
    protocolVersion="2025-03-26",
    capabilities={},
    clientInfo={"name": "x", "version": "1"},
)


async def test_a_server_that_ends_its_stream_at_once_is_not_asked_in_a_loop(
    tmp_path: Path,
) -> None:
    async with odd(tmp_path) as (server, running):
        for _ in range(100):
            await use(running, "packed", bytes=1)
        assert 1 <= len(server.got) <= 8, "the pause doubles each time"


async def test_what_a_server_answers_that_is_no_utf_8_reaches_the_client_as_text(
    tmp_path: Path,
) -> None:
    async def latin(scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        status, headers, body = 405, [JSON], b""
        if scope["method"] == "POST":
            status, headers, body = Odd().post(json.loads((await receive())["body"]))
            body = body.replace(b"no such thing", b"caf\xe9")
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"\xef\xbb\xbf" + body})

    async with serve(latin) as url, gateway_of(tmp_path, http("latin", url)) as running:
        error = (await (await running.post(call("made/up"))).json())["error"]
        assert error == {"code": -32601, "message": "caf\ufffd"}


class Forgetful(Odd):
    """Forgets its sessions when it is told to, and tells only the first call so before there is a new one."""

    def __init__(self) -> None:
        super().__init__()
        self.hellos = 0
        self.known = b""
        self.lost = 0
        self.renewed = asyncio.Event()

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        message = json.loads((await receive())["body"]) if scope["method"] == "POST" else {}
        named = dict(scope["headers"]).get(b"mcp-session-id")
        status, headers, body = self.post(message) if message else (405, [JSON], b"")
        if message.get("method") == "initialize":
            self.hellos += 1
            self.known = b"%d" % self.hellos
            headers = [*headers, (b"mcp-session-id", self.known)]
            if self.hellos > 1:
                self.renewed.set()
        elif named not in {None, self.known}:
            status, body = 404, b""
            self.lost += 1
            if self.lost > 1:
                await self.renewed.wait()
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def test_calls_that_find_the_session_gone_make_one_new_one_together(tmp_path: Path) -> None:
    server = Forgetful()
    async with serve(server) as url, gateway_of(tmp_path, http("odd", url)) as running:
        await use(running, "packed", bytes=1)
        server.known = b"none"
        answers = await asyncio.gather(*(use(running, "packed", bytes=n) for n in range(20)))
        assert answers == ["x" * n for n in range(20)]
        assert server.hellos == 2


class Modern(Odd):
    """Knows only the stateless era, and of that next to nothing."""

    def post(self, message: dict[str, Any]) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        reply = {"jsonrpc": "2.0", "id": message["id"]}
        if message["method"] == "server/discover":
            known = {"supportedVersions": ["2026-07-28"], "capabilities": {}, "ttlMs": 0}
            body = {**reply, "result": {"resultType": "complete", "cacheScope": "private", **known}}
        else:
            body = {**reply, "error": {"code": -32601, "message": f"no {message['method']}"}}
        return 200, [JSON], json.dumps(body).encode()


async def test_a_method_that_no_header_can_carry_is_passed_on(tmp_path: Path) -> None:
    async with serve(Modern()) as url, gateway_of(tmp_path, http("odd", url)) as running:
        for method in ("made/up", "made\r\nX-Up: 1", "gemacht/größer €"):
            reply = await running.post(call(method))
            assert (await reply.json())["error"]["message"] == f"no {method}"


class Talkative(Odd):
    """Has no end of news in its GET stream."""

    said = False

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        if scope["method"] == "POST":
            await super().__call__(scope, receive, send)
            return
        news = b'data: {"jsonrpc":"2.0","method":"notifications/x"}\n\n'
        await send({"type": "http.response.start", "status": 200, "headers": [STREAM]})
        for _ in range(100):
            await send({"type": "http.response.body", "body": news * 2000, "more_body": True})
        self.said = True
        await send({"type": "http.response.body", "body": b""})


async def test_news_without_end_of_an_http_server_hold_up_nobody_else(tmp_path: Path) -> None:
    server = Talkative()
    async with serve(server) as url:
        async with gateway_of(tmp_path, stdio("plain", "plain.py"), http("odd", url)) as running:
            assert await use(running, "echo") == "{}"
            for _ in range(40):  # each of them is told all of it
                await session(running)
            assert await use(running, "packed", bytes=1) == "x"
            for _ in range(60):
                assert await use(running, "echo") == "{}"
            assert not server.said, "some hundred turns of the loop would do, if they were long"
