"""What is kept of streams for a client that comes back: never more than a bound, and not for ever."""

from __future__ import annotations

import asyncio
import json

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.gateway.clients import event_store
from local_mcp_gateway.gateway.clients.event_store import (
    KEPT_EVENTS,
    KEPT_STREAMS,
    EventStore,
    EventStream,
    MemoryBudget,
)
from local_mcp_gateway.gateway.clients.sessions import Session
from local_mcp_gateway.gateway.protocol.sse import Event, SseParser

SIZES = st.lists(st.sampled_from([10, 100, 400, 1100]), min_size=1, max_size=9)


def events(chunk: bytes) -> list[Event]:
    return list(SseParser(10**9).feed(chunk))


@given(SIZES)
async def test_who_comes_back_gets_the_newest_and_hears_how_much_is_missing(
    sizes: list[int],
) -> None:
    kept = EventStore(MemoryBudget(1000)).open(b"7")
    sent = [kept.add(b'"%s"' % (b"x" * size)) for size in sizes]
    kept.end()
    found = await kept.after(0)
    assert found is not None
    assert found[0] == len(sent)
    first, *rest = events(found[1])
    lost = kept.buffer.lost_after(0)
    if lost == len(sent):
        error = json.loads(first.data)
        assert (error["id"], "send the request again" in error["error"]["message"]) == (7, True)
    elif lost:
        assert f"{lost} message" in json.loads(first.data)["params"]["data"]
        assert found[1].endswith(b"".join(sent[lost:]))
    else:
        assert found[1] == b"".join(sent)
    assert [event.id for event in rest][-1:] in ([], [f"p1.{len(sent)}"])
    assert await kept.after(len(sent)) is None


async def test_a_stream_of_many_events_keeps_the_last_ones() -> None:
    kept = EventStore(MemoryBudget()).open(b"1")
    for _ in range(KEPT_EVENTS + 5):
        kept.add(b"x")
    assert kept.buffer.after(0)[0] == (6, b"id: p1.6\r\nevent: message\r\ndata: x\r\n\r\n")


async def test_a_stream_that_has_ended_is_forgotten_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_store, "GRACE_S", 0.01)
    forgotten = asyncio.Event()
    kept = EventStream("p1", b"1", MemoryBudget(), forgotten.set)
    kept.add(b"answer")
    kept.end()
    await asyncio.wait_for(forgotten.wait(), 30)


async def test_the_oldest_of_many_streams_is_forgotten_with_what_it_kept() -> None:
    budget = MemoryBudget()
    event_store = EventStore(budget)
    for _ in range(KEPT_STREAMS + 1):
        event_store.open(b"1").add(b"x")
    assert event_store.find("p1.1") is None
    assert event_store.find("p2.1") is not None
    kept = [event_store.find(f"p{number}.1") for number in range(2, KEPT_STREAMS + 2)]
    assert budget.bytes == sum(found[0].buffer.bytes for found in kept if found)


async def test_a_stream_that_is_forgotten_while_it_runs_keeps_nothing_more() -> None:
    budget = MemoryBudget()
    event_store = EventStore(budget)
    running = [event_store.open(b"1") for _ in range(KEPT_STREAMS + 1)]
    assert running[0].add(b"x") == b"id: p1.1\r\nevent: message\r\ndata: x\r\n\r\n"
    running[0].end()
    assert budget.bytes == 0


async def test_streams_that_have_ended_are_forgotten_before_one_that_runs() -> None:
    event_store = EventStore(MemoryBudget())
    running = event_store.open(b"1")
    for _ in range(2 * KEPT_STREAMS):
        event_store.open(b"2").end()
    assert event_store.find("p1.0") == (running, 0)


async def test_the_streams_of_a_session_that_has_ended_keep_nothing() -> None:
    budget = MemoryBudget()
    session = Session("s", "p", "curl", budget)
    kept = session.event_stream(b"1")
    kept.add(b"x")
    session.enqueue(b"y")
    session.end()
    kept.add(b"x")
    kept.end()
    assert budget.bytes == 0


@pytest.mark.parametrize("event", ["", "p1", "p1.", "p1.²", "p1.x", "p2.1"])
async def test_an_id_that_is_none_of_ours_is_not_found(event: str) -> None:
    event_store = EventStore(MemoryBudget())
    event_store.open(b"1")
    assert event_store.find(event) is None


async def test_a_client_that_reads_in_any_way_is_not_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_store, "GRACE_S", 0)
    kept, given_up = EventStore(MemoryBudget()).open(b"1"), asyncio.Event()
    kept.on_reconnect()  # before it is noticed that the connection of its POST has broken
    kept.on_reconnect()
    kept.on_disconnect(given_up.set)
    kept.on_reader_left()
    for _ in range(3):
        await asyncio.sleep(0)
    assert not given_up.is_set()
    kept.on_reader_left()
    with anyio.fail_after(5):
        await given_up.wait()
