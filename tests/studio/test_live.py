"""Open pages are told what has changed."""

from __future__ import annotations

import asyncio
import http.client
import json
from contextlib import closing
from urllib.parse import urlsplit

from local_mcp_gateway.studio.live import Live
from tests.studio.conftest import Browser, Running


def test_an_open_page_is_told_of_a_call_and_is_no_burden_to_a_stop(
    browser: Browser, running: Running
) -> None:
    parts = urlsplit(browser.url)
    cookie = "; ".join(f"{k}={v}" for k, v in browser.cookies.items())
    with closing(
        http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    ) as connection:
        connection.request("GET", "/studio/live", headers={"Cookie": cookie})
        with connection.getresponse() as stream:
            assert stream.getheader("content-type") == "text/event-stream"
            assert stream.readline().startswith(b"retry")
            running.place.run("call", "echo", "text=again")
            changed = (line for line in iter(stream.readline, b"") if line.startswith(b"data:"))
            assert any("calls" in json.loads(line.removeprefix(b"data:")) for line in changed)


async def test_a_stream_begins_with_what_happened_while_its_page_was_on_its_way() -> None:
    live, left = Live(), asyncio.Event()

    async def receive() -> dict[str, str]:
        await left.wait()
        return {"type": "http.disconnect"}

    live.on_event("call.finished")
    stream = live.stream(receive)
    told = [await anext(stream), await anext(stream)]
    left.set()
    assert b'data: {"calls": 1}' in told[1]
    assert [part async for part in stream] == []


async def test_a_stream_ends_with_the_session_of_its_browser() -> None:
    live, inside, left = Live(), [True], asyncio.Event()

    async def receive() -> dict[str, str]:
        await left.wait()
        return {"type": "http.disconnect"}

    stream = live.stream(receive, lambda: bool(inside))
    assert (await anext(stream)).startswith(b"retry")
    inside.clear()
    live.on_event("call.finished")
    assert [part async for part in stream] == []
