"""What a client gets in answer to a POST: before its result, and when it comes back for it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest

from local_mcp_gateway.gateway.clients import event_store
from local_mcp_gateway.gateway.protocol.sse import Event, SseParser
from tests.gateway.messages import HELLO, call
from tests.gateway.support import Running, gateway_of, http, stdio
from tests.gateway.using import ACCEPT, opened, posted, session


def sleep(seconds: float) -> dict[str, Any]:
    meta = {"progressToken": "t"}
    return call("tools/call", 5, name="sleep", arguments={"seconds": seconds, "say": 1}, _meta=meta)


async def test_a_broken_answer_is_read_to_its_end_on_another_stream(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        headers = await session(running)
        async with posted(running, headers, sleep(2)) as stream:
            last, first = await stream.next()
            assert first["params"]["progress"] == 1
        async with opened(running, headers, **{"Last-Event-ID": last or ""}) as stream:
            _, second = await stream.next()
            assert second["params"]["progress"] == 9
            _, answer = await stream.next()
            assert (answer["id"], answer["result"]["content"][0]["text"]) == (5, "slept")
            assert await stream.reply.content.read() == b""
        async with opened(running, headers, **{"Last-Event-ID": last or ""}) as stream:
            assert (await stream.next())[1]["params"]["progress"] == 9


async def test_only_new_clients_get_an_empty_event_to_come_back_with(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        for version, primed in (("2025-06-18", False), ("2025-11-25", True)):
            params = {**HELLO["params"], "protocolVersion": version}
            hello = await running.post({**HELLO, "params": params})
            headers = {"mcp_session_id": hello.headers["mcp-session-id"]}
            body = await (await running.post(sleep(0), **headers)).text()
            assert body.startswith("id: p1.0\r\nretry: 500\r\ndata: \r\n\r\n") is primed
            assert "id: p1.1\r\n" in body


KIB = 1024


@pytest.fixture
async def running(tmp_path: Path, notes_url: str) -> AsyncIterator[Running]:
    async with gateway_of(
        tmp_path, stdio("plain", "plain.py"), http("notes", notes_url)
    ) as running:
        yield running


async def events_of(reply: aiohttp.ClientResponse) -> AsyncIterator[Event]:
    parser = SseParser(10**9)
    async for chunk in reply.content.iter_any():
        for event in parser.feed(chunk):
            yield event


async def test_a_client_is_told_how_much_of_the_news_of_its_call_it_has_missed(
    tmp_path: Path,
) -> None:
    async with gateway_of(tmp_path, stdio("chatty", "chatty.py")) as running:
        asked = {"messages": 100, "bytes": 500 * KIB, "first": True}
        message = call("tools/call", name="chatter", arguments=asked)
        session = {"Mcp-Session-Id": (await running.post(HELLO)).headers["mcp-session-id"]}
        async with running.http.post(
            running.url, json=message, headers={**ACCEPT, **session}
        ) as reply:
            await running.heard("call.finished", target="chatter")
            with anyio.fail_after(60):
                told = [json.loads(event.data) async for event in events_of(reply)]
        *news, warning, answer = told
        assert answer["result"] == {"content": []}
        assert 0 < len(news) < 100
        lost = 100 - len(news)
        assert warning["params"]["data"].startswith(f"{lost} messages could not be kept for you")


async def test_a_client_is_told_when_its_answer_is_not_kept_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_store.MemoryBudget.__init__, "__defaults__", (500 * KIB,))
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        session = (await running.post(HELLO)).headers["mcp-session-id"]
        meta = {"progressToken": 1}
        asked = call("tools/call", 9, name="progress", arguments={"x": "y" * 800_000}, _meta=meta)
        reply = await running.post(asked, mcp_session_id=session)
        sent = list(SseParser(10**9).feed(await reply.read()))
        assert len(json.loads(sent[-1].data)["result"]["content"][0]["text"]) > 800_000
        headers = {"Accept": "text/event-stream", "Mcp-Session-Id": session}
        for last, status in ((sent[0].id, 200), ("p99.1", 400)):
            asking = {**headers, "Last-Event-ID": last or ""}
            async with running.http.get(running.url, headers=asking) as again:
                assert again.status == status
                assert b"send the request again" in await again.read()
