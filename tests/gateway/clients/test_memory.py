"""What a request leaves behind, and how much is kept for clients that do not read."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest

from local_mcp_gateway.gateway.protocol.sse import Event, SseParser
from tests.gateway.messages import HELLO, call
from tests.gateway.processes import rss_mib
from tests.gateway.support import QUICK, SERVERS, Running, gateway_of, http, stdio
from tests.harness import Place, poll

KIB = 1024
MIB = 1024 * KIB


@pytest.fixture
async def running(tmp_path: Path, notes_url: str) -> AsyncIterator[Running]:
    async with gateway_of(
        tmp_path, stdio("plain", "plain.py"), http("notes", notes_url)
    ) as running:
        yield running


@contextmanager
def garbage() -> Iterator[Counter[str]]:
    """Count our own objects that only the collector of cycles can free, by their type."""
    found: Counter[str] = Counter()
    gc.collect()
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        kinds = [f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.garbage]
        found.update(kind for kind in kinds if kind.startswith("local_mcp_gateway."))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


ASKED: dict[str, Any] = {
    "list": {"jsonrpc": "2.0", "id": 1, "method": "tools/list"},
    "stdio": call("tools/call", name="echo", arguments={}),
    "progress": call("tools/call", name="progress", arguments={}, _meta={"progressToken": 1}),
    "http": call("tools/call", name="list_notes", arguments={}),
}


@pytest.mark.parametrize("what", ASKED)
async def test_a_request_leaves_nothing_for_the_collector_of_cycles(
    running: Running, what: str
) -> None:
    session = (await running.post(HELLO)).headers["mcp-session-id"]
    await running.post(ASKED[what], mcp_session_id=session)
    with garbage() as found:
        for _ in range(20):
            reply = await running.post(ASKED[what], mcp_session_id=session)
            assert b'"result"' in await reply.read()
    assert found == {}


async def events_of(reply: aiohttp.ClientResponse) -> AsyncIterator[Event]:
    parser = SseParser(10**9)
    async for chunk in reply.content.iter_any():
        for event in parser.feed(chunk):
            yield event


class Client:
    """Speaks to a real `serve`; what it opens is read only when a test does."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self.url, self.http = url, http

    async def post(self, message: Any, path: str = "/mcp", **headers: str) -> dict[str, str]:
        async with self.http.post(self.url + path, json=message, headers=headers) as reply:
            body = await reply.read()
            assert b'"code"' not in body, body
            return {"Mcp-Session-Id": reply.headers.get("mcp-session-id", "")}

    async def open(self, path: str, **headers: str) -> aiohttp.ClientResponse:
        return await self.http.get(self.url + path, headers=headers)


async def test_clients_that_do_not_read_do_not_make_the_gateway_grow(shipped: Place) -> None:
    script = str(SERVERS / "chatty.py")
    shared = ("--share", "always")  # so that every client hears what is meant for none
    added = shipped.run("server", "add", "chatty", *shared, "--", sys.executable, script)
    assert added.code == 0
    with shipped.serve() as gateway:
        pid = gateway.wait_ready().process.pid
        accept = {"Accept": "application/json, text/event-stream"}
        connector = aiohttp.TCPConnector(limit=0)
        async with AsyncExitStack() as stack:
            opened = aiohttp.ClientSession(headers=accept, connector=connector)
            client = Client(gateway.url, await stack.enter_async_context(opened))
            chatter = call("tools/call", name="chatter", arguments={"messages": 1, "bytes": 9})
            await client.post(chatter)
            sessions = [await client.post(HELLO) for _ in range(40)]
            streams = [await client.open("/mcp", **session) for session in sessions[:20]]
            before = rss_mib(pid, "VmHWM")
            chatter["params"]["arguments"] = {"messages": 200, "bytes": 500 * KIB}
            await client.post(chatter)
            # Two clients wait for what comes last, so what comes before belongs to neither.
            last = call("tools/call", name="chatter", arguments={"messages": 0})
            await asyncio.gather(client.post(last), client.post(last))
            assert rss_mib(pid, "VmHWM") - before < 60
            told: list[Any] = []
            async with asyncio.timeout(30):
                async for event in events_of(streams[0]):
                    told.append(json.loads(event.data))
                    if told[-1]["method"].endswith("resources/list_changed"):
                        break
            assert any(
                "could not be kept for you" in str(message.get("params")) for message in told
            )
            for session in sessions:
                async with client.http.delete(f"{client.url}/mcp", headers=session):
                    pass
            for stream in streams:
                stream.close()
            await asyncio.to_thread(poll, lambda: rss_mib(pid, "VmRSS") - before < 10)


async def test_what_large_answers_have_taken_comes_back(shipped: Place) -> None:
    script = str(SERVERS / "plain.py")
    assert shipped.run("server", "add", "plain", "--", sys.executable, script).code == 0
    with shipped.serve() as gateway:
        pid = gateway.wait_ready().process.pid
        async with aiohttp.ClientSession() as http:
            client = Client(gateway.url, http)
            await client.post(call("tools/call", name="echo", arguments={}))
            before = rss_mib(pid, "VmRSS")
            streams = [await client.open("/sse") for _ in range(8)]
            for number, stream in enumerate(streams):
                path = (await anext(events_of(stream))).data.decode()
                for size in (3 * MIB, 900 * KIB, 3 * MIB + number):
                    big = call("tools/call", name="big", arguments={"bytes": size})
                    await client.post(big, path)
            await asyncio.to_thread(poll, lambda: rss_mib(pid, "VmRSS") - before > 20)
            for stream in streams:
                stream.close()
            await asyncio.to_thread(poll, lambda: rss_mib(pid, "VmRSS") - before < 10)


async def test_a_legacy_client_that_does_not_take_its_answers_is_cut_off(tmp_path: Path) -> None:
    options = replace(QUICK, max_message_bytes=4 * MIB)
    async with gateway_of(tmp_path, stdio("plain", "plain.py"), options=options) as running:
        async with running.http.get(running.url.replace("/mcp", "/sse")) as stream:
            events = events_of(stream)
            path = (await anext(events)).data.decode()
            big = call("tools/call", name="big", arguments={"bytes": MIB})
            taken = 0
            while (await running.post(big, path=path)).status == 202:
                taken += 1
                await running.post(call("tools/call", name="echo", arguments={}))
            assert not len(running.gateway.sessions)
            with anyio.fail_after(30):
                rest = [json.loads(event.data) async for event in events]
            assert len([message for message in rest if "result" in message]) < taken
