"""Compressed bodies, as bytes: whatever the chunks are, the same comes out, in bounded steps."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.gateway.upstreams.connection import UpstreamDisconnected
from local_mcp_gateway.gateway.upstreams.http_transport import STEP_BYTES, decoded


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
