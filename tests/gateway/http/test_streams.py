"""Streams that outlive a request: the GET stream of a session, and `subscriptions/listen`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
from mcp import ClientSession, types
from mcp.client.sse import sse_client

from local_mcp_gateway.store import queries
from local_mcp_gateway.store.model import Member, ProfileDefinition, ServerDefinition
from tests.gateway.messages import HELLO, META, MODERN, call
from tests.gateway.support import QUICK, Running, gateway_of, stdio
from tests.gateway.using import ACCEPT, Stream, opened, session, use

WATCHED = stdio("watched", "watched.py")


async def change(running: Running) -> None:
    assert await use(running, "change") == "watch://it"


async def subscribe(running: Running, headers: dict[str, str]) -> None:
    reply = await running.post(call("resources/subscribe", uri="watch://it"), **headers)
    assert (await reply.json())["result"] == {}


async def test_a_subscribed_client_hears_of_the_change_and_another_does_not(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, WATCHED) as running:
        one, other = await session(running), await session(running)
        await subscribe(running, one)
        async with opened(running, one) as stream, opened(running, other) as deaf:
            await change(running)
            _, message = await stream.next()
            assert message["method"] == "notifications/resources/updated"
            assert message["params"] == {"uri": "watch://it"}
            await subscribe(running, other)
            await change(running)
            assert (await deaf.next())[1]["params"] == {"uri": "watch://it"}


async def test_a_broken_stream_goes_on_after_the_last_event(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, WATCHED) as running:
        headers = await session(running)
        await subscribe(running, headers)
        async with opened(running, headers) as stream:
            await change(running)
            first, _ = await stream.next()
            await change(running)
            await stream.next()
        await change(running)
        async with opened(running, headers, **{"Last-Event-ID": first or ""}) as stream:
            second, third = await stream.next(), await stream.next()
            assert [int(second[0] or 0), int(third[0] or 0)] == [
                int(first or 0) + 1,
                int(first or 0) + 2,
            ]


async def test_what_came_before_the_stream_was_opened_is_not_lost(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, WATCHED) as running:
        headers = await session(running)
        await subscribe(running, headers)
        await change(running)
        async with opened(running, headers) as stream:
            assert (await stream.next())[1]["params"] == {"uri": "watch://it"}


async def test_changes_that_wait_are_told_once(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, WATCHED) as running:
        headers = await session(running)
        await subscribe(running, headers)
        for _ in range(5):
            await change(running)
        async with opened(running, headers) as stream:
            first, message = await stream.next()
            assert message["params"] == {"uri": "watch://it"}
            await change(running)
            second, _ = await stream.next()
            assert int(second or 0) == int(first or 0) + 1


async def test_the_server_is_left_only_when_the_last_subscriber_has_left(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, WATCHED) as running:
        one, other = await session(running), await session(running)
        for headers in (one, other):
            await subscribe(running, headers)
        for headers, left in ((one, "watch://it"), (other, "")):
            await running.post(call("resources/unsubscribe", uri="watch://it"), **headers)
            assert await use(running, "who") == left


async def test_a_child_that_was_started_again_is_subscribed_again(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, WATCHED) as running:
        headers = await session(running)
        await subscribe(running, headers)
        await running.wrote("subscribed watch://it")
        running.said.clear()
        await use(running, "die")
        await running.heard("upstream.lost")
        await running.wrote("subscribed watch://it")
        assert await use(running, "who") == "watch://it"


async def test_a_stateless_client_listens_for_what_it_names(tmp_path: Path) -> None:
    wanted = {"resourceSubscriptions": ["watch://it"], "toolsListChanged": True}
    message = call("subscriptions/listen", "mine", notifications=wanted, _meta=META)
    headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "subscriptions/listen", **ACCEPT}
    async with gateway_of(tmp_path, WATCHED) as running:
        async with running.http.post(running.url, json=message, headers=headers) as reply:
            stream = Stream(reply)
            _, acknowledged = await stream.next()
            assert acknowledged["method"] == "notifications/subscriptions/acknowledged"
            assert acknowledged["params"]["notifications"] == wanted
            await change(running)
            _, updated = await stream.next()
            assert updated["params"]["uri"] == "watch://it"
            meta = updated["params"]["_meta"]
            assert meta == {"io.modelcontextprotocol/subscriptionId": "mine"}
        await running.wrote("still subscribed")
        assert await use(running, "who") == ""


async def test_a_clashing_resource_is_read_and_watched_under_its_own_address(
    tmp_path: Path,
) -> None:
    second: ServerDefinition = stdio("second", "watched.py")
    async with gateway_of(tmp_path, WATCHED, second) as running:
        body = await (await running.post(call("resources/list"))).json()
        own = "s-second+watch://it"
        assert [r["uri"] for r in body["result"]["resources"]] == ["watch://it", own]
        read = await (await running.post(call("resources/read", uri=own))).json()
        assert read["result"]["contents"] == [{"uri": own, "text": "0"}]
        headers = await session(running)
        await running.post(call("resources/subscribe", uri=own), **headers)
        async with opened(running, headers) as stream:
            await use(running, "second__change")
            assert (await stream.next())[1]["params"] == {"uri": own}


async def test_a_server_that_a_client_listens_to_is_not_idle(tmp_path: Path) -> None:
    options = replace(QUICK, idle_stop_s=1)
    async with gateway_of(tmp_path, WATCHED, options=options) as running:
        headers = await session(running)
        await subscribe(running, headers)
        upstream = running.gateway.registry.upstreams["watched"]
        async with opened(running, headers):
            assert running.gateway.broker.has_subscribers(upstream)
        await running.heard("upstream.stopped")
        assert not running.gateway.broker.has_subscribers(upstream)


async def unsubscribe(running: Running, headers: dict[str, str], path: str = "/mcp") -> None:
    message = call("resources/unsubscribe", uri="watch://it")
    assert (await (await running.post(message, path=path, **headers)).json())["result"] == {}


@asynccontextmanager
async def listening(running: Running, identity: str) -> AsyncIterator[Stream]:
    message = call(
        "subscriptions/listen",
        identity,
        notifications={"resourceSubscriptions": ["watch://it"]},
        _meta=META,
    )
    headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "subscriptions/listen", **ACCEPT}
    async with running.http.post(running.url, json=message, headers=headers) as reply:
        stream = Stream(reply)
        assert (await stream.next())[1]["method"] == "notifications/subscriptions/acknowledged"
        yield stream


async def test_who_leaves_takes_nothing_from_who_listens_in_another_way(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, WATCHED) as running:
        async with listening(running, "stays") as stream:
            async with listening(running, "goes"):
                pass
            headers = await session(running)
            await subscribe(running, headers)
            await unsubscribe(running, headers)
            assert await use(running, "who") == "watch://it"
            await change(running)
            assert (await stream.next())[1]["params"]["uri"] == "watch://it"
        await running.wrote("still subscribed")
        assert await use(running, "who") == ""


async def test_who_leaves_takes_nothing_from_who_listens_in_another_profile(
    tmp_path: Path,
) -> None:
    async with gateway_of(tmp_path, WATCHED) as running:
        other = ProfileDefinition("other", members=(Member("watched"),))
        await queries.add_profile(running.database, other)
        await running.gateway.reload()
        one = await session(running)
        await subscribe(running, one)
        hello = await running.post(HELLO, path="/mcp/other")
        two = {"mcp_session_id": hello.headers["mcp-session-id"]}
        message = call("resources/subscribe", uri="watch://it")
        assert (await running.post(message, path="/mcp/other", **two)).status == 200
        await unsubscribe(running, two, "/mcp/other")
        assert await use(running, "who") == "watch://it"
        await unsubscribe(running, one)
        assert await use(running, "who") == ""


async def test_a_session_that_ends_leaves_no_subscription_at_the_server(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, WATCHED) as running:
        one, other = await session(running), await session(running)
        for headers in (one, other):
            await subscribe(running, headers)
        await end(running, one)
        assert await use(running, "who") == "watch://it"
        await end(running, other)
        await running.wrote("still subscribed")
        assert await use(running, "who") == ""


async def end(running: Running, headers: dict[str, str]) -> None:
    named = {"Mcp-Session-Id": headers["mcp_session_id"]}
    async with running.http.delete(running.url, headers=named) as reply:
        assert reply.status == 200


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
