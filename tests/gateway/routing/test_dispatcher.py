"""What a client sends without an id: its notifications go where they belong, nothing else goes anywhere."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from local_mcp_gateway.gateway.clients import sessions
from local_mcp_gateway.gateway.clients.capabilities import MEDIATED
from local_mcp_gateway.gateway.routing.router import Router
from local_mcp_gateway.store import queries
from local_mcp_gateway.store.model import ToolSetting
from tests.gateway.apart import client
from tests.gateway.messages import call
from tests.gateway.support import QUICK, Running, gateway_of, stdio
from tests.gateway.using import session

HELD = replace(QUICK, hold_altered_tools=True, hold_new_tools=True)


def told(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": params}


def lines(running: Running, start: str, *servers: str) -> list[str]:
    """Return the lines that servers wrote to stderr and that begin so, in order."""
    return [
        fields["line"].removeprefix(start)
        for event, fields in running.said
        if event == "upstream.logged"
        and (not servers or fields["server"] in servers)
        and fields["line"].startswith(start)
    ]


def heard(running: Running, server: str) -> list[str]:
    """Return what a server heard without an id, in order."""
    return lines(running, "heard ", server)


async def until_marked(running: Running, *servers: str) -> None:
    """Return once these servers have heard all that was sent before."""
    assert (await running.post(told("notifications/mark"))).status == 202
    for server in servers:
        await running.heard("upstream.logged", server=server, line="heard notifications/mark {}")


async def test_a_request_without_an_id_is_refused_and_reaches_no_server(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        await running.post(call("tools/list"))
        for method in (*Router.METHODS, "made/up", "tasks/cancel", "Notifications/x"):
            reply = await running.post(told(method, name="echo", uri="x:y", arguments={}))
            error = (await reply.json())["error"]
            assert (reply.status, error["code"]) == (400, -32600), method
            assert f"{method} is not a notification: send it with an id" in error["message"]
        old = call("initialize", protocolVersion="2025-03-26", capabilities=MEDIATED)
        opened = await running.post(old)
        headers = {"mcp_session_id": opened.headers["mcp-session-id"]}
        batch = [told("tools/call", name="echo"), call("ping", 7)]
        answers = await (await running.post(batch, **headers)).json()
        assert answers[0]["error"]["code"] == -32600
        assert answers[1] == {"jsonrpc": "2.0", "id": 7, "result": {}}
        async with running.http.get(running.url.replace("/mcp", "/sse")) as legacy:
            await legacy.content.readline()
            path = (await legacy.content.readline()).decode().removeprefix("data: ").strip()
            assert (await running.post(told("tools/call", name="echo"), path=path)).status == 400
        await until_marked(running, "plain")
        assert heard(running, "plain") == ["notifications/mark {}"]


async def test_a_notification_goes_to_whom_it_names_and_else_to_every_server(
    tmp_path: Path,
) -> None:
    servers = stdio("one", "plain.py"), stdio("two", "plain.py")
    async with gateway_of(tmp_path, *servers) as running:
        await running.post(call("tools/list"))
        for method, params in (
            ("notifications/roots/list_changed", {}),
            ("notifications/custom", {"name": "two__echo", "n": 1.5}),
            ("notifications/custom", {"name": "unheard of"}),
            ("notifications/custom", {"name": 5, "uri": []}),
        ):
            assert (await running.post(told(method, **params))).status == 202
        await until_marked(running, "one", "two")
        everyone = ["notifications/roots/list_changed {}"]
        named = [f"notifications/custom {json.dumps({'name': 'echo', 'n': 1.5})}"]
        unknown = [
            f"notifications/custom {json.dumps(params)}"
            for params in ({"name": "unheard of"}, {"name": 5, "uri": []})
        ]
        mark = ["notifications/mark {}"]
        assert heard(running, "one") == everyone + unknown + mark
        assert heard(running, "two") == everyone + named + unknown + mark


async def test_what_is_hidden_or_held_passes_neither_told_nor_asked(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py"), options=HELD) as running:
        await running.post(call("tools/list"))
        await running.kept("plain")
        await queries.set_tool(
            running.database, "default", ToolSetting("plain", "pid", enabled=False)
        )
        renamed = ToolSetting("plain", "log", name="write")
        await queries.set_tool(running.database, "default", renamed)
        await running.gateway.reload()
        grow = call("tools/call", name="grow", arguments={"name": "later"})
        await running.heard_after(running.post(grow), "catalog.altered")
        for name, code in (("pid", -32601), ("log", -32601), ("later", -32010)):
            for odd in ({}, {"uri": 5}, {"_meta": 5}):
                params = {"name": name, **odd}
                assert (await running.post(told("notifications/custom", **params))).status == 202
                body = await (await running.post(call("made/up", **params))).json()
                assert body["error"]["code"] == code, params
                assert body["error"]["message"] != "no made/up"  # which only the server says
        body = await (await running.post(call("made/up", name="write"))).json()
        assert body["error"]["message"] == "no made/up"
        await until_marked(running, "plain")
        assert heard(running, "plain") == ["notifications/mark {}"]


async def test_lists_that_come_while_a_client_is_greeted_are_no_news_to_it(tmp_path: Path) -> None:
    async with (
        gateway_of(tmp_path, stdio("keeping", "keeping.py", "--silent")) as running,
        client(running) as user,
    ):
        await user.use("later", data="said")
        await user.until(lambda: user.notes("notifications/message"))
        kinds = ("tools", "prompts", "resources")
        assert not any(user.notes(f"notifications/{kind}/list_changed") for kind in kinds)


async def test_requests_with_one_id_are_cancelled_together(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        headers = await session(running)
        long = call("tools/call", 7, name="sleep", arguments={"seconds": 60})
        posts = [asyncio.create_task(running.post(long, **headers)) for _ in range(2)]
        await running.until(lambda: len(lines(running, "sleeping ")) == 2)
        await running.post(told("notifications/cancelled", requestId=7), **headers)
        assert [reply.status for reply in await asyncio.gather(*posts)] == [202, 202]
        await running.until(lambda: len(lines(running, "cancelled ")) == 2)


async def test_a_cancellation_that_overtakes_its_request_counts_once(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        headers = await session(running)
        echo = call("tools/call", 7, name="echo", arguments={"text": "said"})
        await running.post(told("notifications/cancelled", requestId=7), **headers)
        assert (await running.post({**echo, "id": "7"}, **headers)).status == 200
        assert (await running.post(echo, **headers)).status == 202
        assert (await running.post(echo, **headers)).status == 200


async def test_a_cancellation_is_remembered_for_a_moment_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "REMEMBERED_S", 0)
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        headers = await session(running)
        await running.post(told("notifications/cancelled", requestId=7), **headers)
        assert "result" in await (await running.post(call("ping", 7), **headers)).json()
