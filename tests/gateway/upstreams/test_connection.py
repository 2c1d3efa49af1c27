"""A server that talks without end is read for a third of the time, however it cuts what it says."""

from __future__ import annotations

import asyncio
import gc
import json
from dataclasses import replace
from pathlib import Path

import pytest

from local_mcp_gateway.gateway.protocol.sse import STEP_LINES, SseParser
from local_mcp_gateway.gateway.upstreams.connection import (
    REST,
    SILENT,
    TURN_S,
    Call,
    FairShare,
    UpstreamDisconnected,
    reject,
)
from local_mcp_gateway.store.model import ServerKind
from tests.gateway.messages import call
from tests.gateway.support import QUICK, SERVERS, gateway_of, http, process, stdio
from tests.gateway.using import use


class Clock:
    """Stands until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_turn_goes_on_over_chunks_that_come_at_once() -> None:
    clock = Clock()
    turn = FairShare(clock)
    for _ in range(3):
        turn.begin()
        clock.now += TURN_S / 2
        rest_s = turn.rest_s()
    assert rest_s == pytest.approx(1.5 * TURN_S * REST)


def test_a_server_that_is_waited_for_has_rested_meanwhile() -> None:
    clock = Clock()
    turn = FairShare(clock)
    for _ in range(50):
        turn.begin()
        clock.now += TURN_S / 2
        assert turn.rest_s() == 0
        clock.now += TURN_S / 2 * REST


@pytest.mark.parametrize("line", [b":\n", b": keep-alive\r\n", b"id: 1\n", b"junk\r", b"\n"])
def test_a_stream_without_events_is_taken_in_steps(line: bytes) -> None:
    parser = SseParser(10**6)
    steps = list(parser.steps(line * 10_000))
    assert steps == [None] * (10_000 // STEP_LINES + 1)
    assert list(parser.steps(b": no end")) == [None]
    (event, end) = parser.steps(b"\ndata: 1\n\n")
    assert (event and event.data, end) == (b"1", None)


@pytest.mark.parametrize("kind", [ServerKind.HTTP, ServerKind.SSE])
async def test_comments_without_end_hold_up_nobody_else(tmp_path: Path, kind: ServerKind) -> None:
    options = replace(QUICK, list_timeout_s=0.2)
    async with process(SERVERS / "comments.py") as (child, url):
        path = "sse" if kind is ServerKind.SSE else "mcp"
        servers = stdio("plain", "plain.py"), http("talking", f"{url}/{path}", kind=kind)
        async with gateway_of(tmp_path, *servers, options=options) as running:
            await running.heard_after(use(running, "echo"), "upstream.connected", server="plain")
            talk = asyncio.create_task(running.post(call("tools/call", name="talk")))
            for number in range(30):
                assert await use(running, "echo", n=number) == json.dumps({"n": number})
            assert child.returncode is None
            talk.cancel()


async def test_a_wait_that_fails_is_told_to_who_waits_and_reported_by_nobody_else() -> None:
    reported: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context))
    awaited, abandoned = loop.create_future(), loop.create_future()
    for waiting in (awaited, abandoned):
        reject(waiting, "it exited with code 0")
        reject(waiting, "and once more")
    with pytest.raises(UpstreamDisconnected, match="it exited with code 0"):
        await awaited
    del abandoned, waiting
    gc.collect()
    assert reported == []


@pytest.mark.parametrize("token", [b"null", b"{}", b"true"])
def test_what_is_no_progress_token_is_passed_on_and_asks_for_no_progress(token: bytes) -> None:
    call = Call("tools/call", b'{"_meta":{"progressToken":%s}}' % token, SILENT)
    assert (call.prepared(b"1"), call.token) == (call.params, b"")
