"""The legacy SSE transport, before and behind the gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
from mcp import ClientSession, types
from mcp.client.sse import sse_client

from local_mcp_gateway.store.model import ServerKind
from tests.gateway.messages import call
from tests.gateway.support import SERVERS, gateway_of, http, process, stdio
from tests.gateway.using import use


async def test_a_legacy_server_is_used_by_a_new_client(tmp_path: Path) -> None:
    async with process(SERVERS / "sdk_sse.py") as (child, url):
        async with gateway_of(tmp_path, http("old", url, kind=ServerKind.SSE)) as running:
            assert await use(running, "add", a=2, b=3) == "5"
            child.kill()
            await running.heard("upstream.lost", server="old")
            assert (await use(running, "add", a=2, b=3))["code"] == -32001


async def test_a_legacy_client_lists_calls_hears_and_is_asked(tmp_path: Path) -> None:
    async def roots(context: Any) -> types.ListRootsResult:
        return types.ListRootsResult(roots=[])

    steps: list[float] = []

    async def take(progress: float, total: float | None, message: str | None) -> None:
        steps.append(progress)

    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        async with (
            sse_client(running.url.replace("/mcp", "/sse")) as streams,
            ClientSession(streams[0], streams[1], list_roots_callback=roots) as client,
        ):
            with anyio.fail_after(20):
                assert (await client.initialize()).server_info.name == "local-mcp-gateway"
                assert len((await client.list_tools()).tools) == 13
                await client.call_tool("progress", {}, progress_callback=take)
                answer = await client.call_tool("ask", {"method": "roots/list"})
        assert steps == [1, 2]
        assert '"roots": []' in str(answer.content)
        await running.until(lambda: not len(running.gateway.sessions))


async def test_a_message_to_no_stream_is_not_found(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        assert (await running.post(call("ping"), path="/messages/nobody")).status == 404


async def test_the_endpoint_lies_below_the_path_that_a_proxy_shows_the_gateway_under(
    tmp_path: Path,
) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        for given, start in (
            ("/gw", "/gw/messages/"),
            ("/team/gw/", "/team/gw/messages/"),
            ("//evil.example", "/messages/"),
            ("https://evil.example", "/messages/"),
            ("/a b", "/messages/"),
        ):
            headers = {"Accept": "text/event-stream", "X-Forwarded-Prefix": given}
            url = running.url.removesuffix("/mcp") + "/sse"
            async with running.http.get(url, headers=headers) as reply:
                with anyio.fail_after(10):
                    event = await reply.content.readany()
            assert f"data: {start}" in event.decode(), (given, event)
