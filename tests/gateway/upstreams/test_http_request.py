"""Compressed bodies and redirects: in bounded steps, and with no secret for another origin."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.gateway.upstreams.connection import UpstreamDisconnected
from local_mcp_gateway.gateway.upstreams.http_request import STEP_BYTES, decoded
from local_mcp_gateway.store.model import ServerKind
from tests.gateway.messages import call
from tests.gateway.support import QUICK, gateway_of, http, serve
from tests.gateway.upstreams.odd_http import Odd
from tests.gateway.using import use


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
