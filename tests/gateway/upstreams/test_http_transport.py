"""Compressed bodies, as bytes: whatever the chunks are, the same comes out, in bounded steps."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.gateway.upstreams.connection import UpstreamDisconnected
from local_mcp_gateway.gateway.upstreams.http_transport import STEP_BYTES, decoded
from local_mcp_gateway.store.model import ServerKind
from tests.gateway.messages import call
from tests.gateway.support import QUICK, Running, gateway_of, http, serve, stdio
from tests.gateway.using import session, use


async def parts(body: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(body), size):
        yield body[at : at + size]


def packed(body: bytes, bits: int) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, bits)
    return stream.compress(body) + stream.flush()


@given(
    st.binary(max_size=300), st.integers(1, 50), st.sampled_from([("gzip", 31), ("deflate", 15)])
)
async def test_what_was_packed_comes_out(body: bytes, size: int, kind: tuple[str, int]) -> None:
    chunks = parts(packed(body, kind[1]), size)
    assert b"".join([part async for part in decoded(kind[0], chunks)]) == body


async def test_a_bomb_comes_out_step_by_step() -> None:
    bomb = packed(b"a" * 50_000_000, 31)
    assert len(bomb) < STEP_BYTES
    sizes = [len(part) async for part in decoded("gzip", parts(bomb, 10**6))]
    assert sum(sizes) == 50_000_000
    assert max(sizes) <= STEP_BYTES


@pytest.mark.parametrize(
    ("encoding", "body", "said"),
    [
        ("br", b"x", "not asked for: br"),
        ("gzip", b"no gzip at all", "cannot be read"),
        ("gzip", packed(b"some text", 31)[:-3], "broke off"),
    ],
)
async def test_what_cannot_be_unpacked_is_said(encoding: str, body: bytes, said: str) -> None:
    with pytest.raises(UpstreamDisconnected, match=said):
        [_ async for _ in decoded(encoding, parts(body, 5))]


JSON = (b"content-type", b"application/json")


STREAM = (b"content-type", b"text/event-stream")


class Odd:
    """Speaks 2025-11-25; its GET stream ends at once, and `packed` is a gzip of as much as is asked."""

    def __init__(self) -> None:
        self.got: list[Mapping[bytes, bytes]] = []

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        status, headers, body = 200, [STREAM], b""
        if scope["method"] == "POST":
            status, headers, body = self.post(json.loads((await receive())["body"]))
        else:
            self.got.append(dict(scope["headers"]))
        headers = [*headers, (b"content-length", b"%d" % len(body)), (b"mcp-session-id", b"1")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def post(self, message: dict[str, Any]) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        if "id" not in message:
            return 202, [JSON], b""
        reply = {"jsonrpc": "2.0", "id": message["id"]}
        match message["method"]:
            case "initialize":
                info = {"name": "odd", "version": "1"}
                known = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}}
                reply["result"] = {**known, "serverInfo": info}
            case "tools/list":
                reply["result"] = {"tools": [{"name": "packed", "inputSchema": {}}]}
            case "tools/call":
                text = "x" * message["params"]["arguments"]["bytes"]
                reply["result"] = {"content": [{"type": "text", "text": text}]}
                stream = zlib.compressobj(9, zlib.DEFLATED, 31)
                packed = stream.compress(json.dumps(reply).encode()) + stream.flush()
                return 200, [JSON, (b"content-encoding", b"gzip")], packed
            case _:
                reply["error"] = {"code": -32601, "message": "no such thing"}
        return 200, [JSON], json.dumps(reply).encode()


@asynccontextmanager
async def odd(tmp_path: Path, **changes: Any) -> AsyncIterator[tuple[Odd, Running]]:
    server, options = Odd(), replace(QUICK, **changes)
    async with serve(server) as url:
        async with gateway_of(tmp_path, http("odd", url + "/mcp"), options=options) as running:
            yield server, running


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


async def test_a_redirected_stream_is_not_followed_with_our_secrets(tmp_path: Path) -> None:
    other = Odd()
    async with serve(other) as elsewhere:

        async def redirect(scope: Mapping[str, Any], receive: Any, send: Any) -> None:
            where = [(b"location", elsewhere.encode() + b"/sse")]
            await send({"type": "http.response.start", "status": 302, "headers": where})
            await send({"type": "http.response.body", "body": b""})

        secret = {"X-Api-Key": "secret"}
        async with serve(redirect) as url:
            server = http("old", url + "/sse", kind=ServerKind.SSE, headers=secret)
            options = replace(QUICK, list_timeout_s=1)
            async with gateway_of(tmp_path, server, options=options) as running:
                await running.post(call("tools/list"))
                lost = await running.heard("upstream.lost")
                assert lost["reason"] == (
                    f"it redirects to {elsewhere}/sse: give that URL, if you trust it"
                )
    assert other.got == []


async def test_a_server_that_moves_its_path_is_followed_in_every_way(tmp_path: Path) -> None:
    """As web frameworks do for a slash at the end."""
    inner, moved = Odd(), Counter[str]()

    async def mount(scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        if scope["path"].endswith("/"):
            await inner(scope, receive, send)
            return
        moved[scope["method"]] += 1
        where = [(b"location", scope["path"].encode() + b"/")]
        await send({"type": "http.response.start", "status": 307, "headers": where})
        await send({"type": "http.response.body", "body": b""})

    async with serve(mount) as url:
        secret = {"X-Api-Key": "secret"}
        async with gateway_of(tmp_path, http("odd", url + "/mcp", headers=secret)) as running:
            assert await use(running, "packed", bytes=3) == "xxx"
            await running.until(lambda: inner.got)
    assert set(moved) == {"POST", "GET", "DELETE"}
    assert all(headers[b"x-api-key"] == b"secret" for headers in inner.got)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_nothing_is_sent_to_another_origin(tmp_path: Path, status: int) -> None:
    other, here = Odd(), Odd()
    reached: list[str] = []

    async def elsewhere(scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        reached.append(scope["method"])
        await other(scope, receive, send)

    async with serve(elsewhere) as foreign:

        async def redirect(scope: Mapping[str, Any], receive: Any, send: Any) -> None:
            if scope["method"] == "POST":
                await here(scope, receive, send)
                return
            where = [(b"location", foreign.encode() + b"/mcp")]
            await send({"type": "http.response.start", "status": status, "headers": where})
            await send({"type": "http.response.body", "body": b""})

        async with serve(redirect) as url:
            secret = {"X-Api-Key": "secret"}
            async with gateway_of(tmp_path, http("odd", url + "/mcp", headers=secret)) as running:
                assert await use(running, "packed", bytes=3) == "xxx"
    assert reached == []


async def test_a_circle_of_redirections_is_told(tmp_path: Path) -> None:
    async def circle(scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        where = [(b"location", b"/b" if scope["path"] == "/a" else b"/a")]
        await send({"type": "http.response.start", "status": 308, "headers": where})
        await send({"type": "http.response.body", "body": b""})

    async with serve(circle) as url:
        options = replace(QUICK, list_timeout_s=1)
        async with gateway_of(tmp_path, http("odd", url + "/a"), options=options) as running:
            await running.post(call("tools/list"))
            lost = await running.heard("upstream.lost")
            assert lost["reason"] == "it redirects in a circle"


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
