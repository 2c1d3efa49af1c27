"""What is kept of streams for a client that comes back: never more than a bound, and not for ever."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.gateway import replay
from local_mcp_gateway.gateway.replay import KEPT_BYTES, KEPT_EVENTS, Replay, Replays


@given(st.lists(st.sampled_from([10, 1000, KEPT_BYTES // 3, KEPT_BYTES + 1]), max_size=9))
async def test_a_stream_keeps_its_newest_events_within_its_bound(sizes: list[int]) -> None:
    kept = Replays().open()
    newest = 0
    for size in sizes:
        newest = len(kept.add(b"x" * size))
        assert newest <= kept.bytes <= max(newest, KEPT_BYTES)
        found = await kept.after(0)
        assert found is not None
        assert len(found[1]) == kept.bytes


async def test_a_stream_of_many_events_keeps_the_last_ones() -> None:
    kept = Replays().open()
    for _ in range(KEPT_EVENTS + 5):
        kept.add(b"x")
    found = await kept.after(0)
    assert found is not None
    assert found[1].startswith(b"id: p1.6\r\n")


async def test_a_stream_that_has_ended_is_forgotten_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replay, "GRACE_S", 0.01)
    forgotten = asyncio.Event()
    kept = Replay("p1", forgotten.set)
    kept.add(b"answer")
    kept.end()
    await asyncio.wait_for(forgotten.wait(), 30)


@pytest.mark.parametrize("event", ["", "p1", "p1.", "p1.²", "p1.x", "p2.1"])
async def test_an_id_that_is_none_of_ours_is_not_found(event: str) -> None:
    replays = Replays()
    replays.open()
    assert replays.find(event) is None
