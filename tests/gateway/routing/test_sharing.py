"""Clients of one server are kept apart: what one says, stores and receives reaches no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from local_mcp_gateway.store import queries
from local_mcp_gateway.store.model import Share, ToolSetting
from tests.gateway.apart import Later, client, roots
from tests.gateway.messages import META, call
from tests.gateway.processes import gone
from tests.gateway.support import QUICK, SERVERS, Running, gateway_of, http, process, stdio
from tests.gateway.using import names, use

A, B = "file:///a", "file:///b"


@asynccontextmanager
async def keeping(
    tmp_path: Path, kind: str, *flags: str, options: Any = QUICK, **changes: Any
) -> AsyncIterator[Running]:
    """Serve the server that keeps what its clients tell it."""
    if kind == "stdio":
        server = stdio("keeping", "keeping.py", *flags, **changes)
        async with gateway_of(tmp_path, server, options=options) as running:
            yield running
        return
    async with process(SERVERS / "keeping.py", "--http", *flags) as (_, url):
        server = http("keeping", url, **changes)
        async with gateway_of(tmp_path, server, options=options) as running:
            yield running


@pytest.mark.parametrize("kind", ["stdio", "http"])
async def test_each_client_has_its_own_roots_from_its_first_call_on(
    tmp_path: Path, kind: str
) -> None:
    async with keeping(tmp_path, kind) as running:
        async with (
            client(running, roots_list=roots(A)) as one,
            client(running, roots_list=roots(B)) as other,
        ):
            assert await one.use("roots") == [A]
            assert await other.use("roots") == [B]
            assert await one.use("roots") == [A]


@pytest.mark.parametrize("kind", ["stdio", "http"])
async def test_new_roots_of_one_client_are_no_news_to_another(tmp_path: Path, kind: str) -> None:
    async with (
        keeping(tmp_path, kind) as running,
        client(running, roots_list=roots(A)) as one,
        client(running, roots_list=roots(B)) as other,
    ):
        assert [await one.use("roots"), await other.use("roots")] == [[A], [B]]
        one.answers["roots/list"] = roots(A, A + "2")
        await one.tell("notifications/roots/list_changed")
        while await one.use("roots") != [A, A + "2"]:
            await one.use("pid")
        assert await other.use("roots") == [B]


@pytest.mark.parametrize("kind", ["stdio", "http"])
async def test_what_a_server_keeps_and_lists_for_one_client_is_not_shown_to_another(
    tmp_path: Path, kind: str
) -> None:
    async with (
        keeping(tmp_path, kind) as running,
        client(running, roots_list=roots(A)) as one,
        client(running, roots_list=roots(B)) as other,
    ):
        assert await one.use("note", text="mine") == "mine"
        while "noted_mine" not in str(await one.ask("tools/list")):
            await one.use("pid")
        assert await other.use("note") == ""
        assert "noted_mine" not in str(await other.ask("tools/list"))
        assert "noted_mine" not in await names(running)


async def test_the_tasks_of_one_client_are_neither_listed_for_another_nor_lost(
    tmp_path: Path,
) -> None:
    async with (
        keeping(tmp_path, "stdio", "--silent", "--tasks") as running,
        client(running) as one,
        client(running) as other,
    ):
        for each in (one, other):
            params = {"name": "pid", "arguments": {"data": "run"}, "task": {}}
            assert "task" in (await each.ask("tools/call", **params))["result"]
        for each in (one, other):
            tasks = (await each.ask("tasks/list"))["result"]["tasks"]
            assert [task["taskId"] for task in tasks] == ["keeping:0-run"]


@pytest.mark.parametrize("kind", ["stdio", "http"])
async def test_log_lines_go_to_the_client_that_they_are_about_at_its_level(
    tmp_path: Path, kind: str
) -> None:
    async with (
        keeping(tmp_path, kind) as running,
        client(running, roots_list=roots(A)) as one,
        client(running, roots_list=roots(B)) as other,
    ):
        for each, level in ((one, "debug"), (other, "error")):
            await each.use("pid")
            assert (await each.ask("logging/setLevel", level=level))["result"] == {}
            for severity in ("debug", "error"):
                await each.use("log", level=severity, data=f"{level} {severity}")
        said = [[note["data"] for note in c.notes("notifications/message")] for c in (one, other)]
        assert said == [["debug debug", "debug error"], ["error error"]]


async def test_a_log_line_after_a_call_goes_to_the_client_of_the_call(tmp_path: Path) -> None:
    async with (
        keeping(tmp_path, "stdio") as running,
        client(running, roots_list=roots(A)) as one,
        client(running, roots_list=roots(B)) as other,
    ):
        await other.use("pid")
        await one.use("later", data="after")
        await one.until(lambda: one.notes("notifications/message"))
        assert not other.notes("notifications/message")


@pytest.mark.parametrize("kind", ["stdio", "http"])
async def test_clients_that_use_the_same_tokens_and_ids_at_once_get_their_own_answers(
    tmp_path: Path, kind: str
) -> None:
    async with (
        keeping(tmp_path, kind) as running,
        client(running, roots_list=roots(A), sampling_createMessage={"text": "one"}) as one,
        client(running, roots_list=roots(B), sampling_createMessage={"text": "other"}) as other,
    ):
        for each in (one, other):
            await each.use("pid")
        work = [
            each.use("work", {"progressToken": 7}, method="sampling/createMessage", text=text)
            for each, text in ((one, "one"), (other, "other"))
        ]
        assert await asyncio.gather(*work) == [{"text": "one"}, {"text": "other"}]
        for each, text in ((one, "one"), (other, "other")):
            (progress,) = each.notes("notifications/progress")
            assert (progress["progressToken"], progress["message"]) == (7, text)


async def test_a_client_that_leaves_takes_its_child_with_it_and_no_other(tmp_path: Path) -> None:
    async with (
        keeping(tmp_path, "stdio") as running,
        client(running, roots_list=roots(A)) as one,
        client(running, roots_list=roots(B)) as other,
    ):
        pids = [await one.use("pid"), await other.use("pid")]
        assert len(set(pids)) == 2
        await one.leave()
        await gone(pids[0])
        assert await other.use("pid") == pids[1]


async def test_a_server_that_asks_nobody_has_one_child_for_all(tmp_path: Path) -> None:
    async with (
        keeping(tmp_path, "stdio", "--silent") as running,
        client(running) as one,
        client(running) as other,
    ):
        assert await one.use("pid") == await other.use("pid") == int(await use(running, "pid"))


async def test_the_connection_on_which_a_server_asks_first_is_the_clients_from_then_on(
    tmp_path: Path,
) -> None:
    async with (
        keeping(tmp_path, "stdio", "--silent") as running,
        client(running, elicitation_create={"action": "accept"}) as one,
        client(running) as other,
    ):
        shared = await one.use("pid")
        answer = await one.use("work", method="elicitation/create", text="who?")
        assert answer == {"action": "accept"}
        assert await one.use("pid") == shared
        assert await other.use("pid") != shared


async def test_nobody_answers_on_a_connection_that_another_client_has_used(tmp_path: Path) -> None:
    async with (
        keeping(tmp_path, "stdio", "--silent") as running,
        client(running, elicitation_create={"action": "accept"}) as one,
        client(running) as other,
    ):
        shared = await other.use("pid")
        refused = await one.use("work", method="elicitation/create", text="who?")
        assert "made again can be answered" in refused["message"]
        await gone(shared)
        answer = await one.use("work", method="elicitation/create", text="who?")
        assert answer == {"action": "accept"}


async def test_a_log_line_that_may_be_of_either_client_reaches_none(tmp_path: Path) -> None:
    async with (
        keeping(tmp_path, "stdio", "--silent") as running,
        client(running) as one,
        client(running) as other,
    ):
        shared = await other.use("pid")
        await one.use("later", data="whose?")
        await gone(shared)
        await one.use("log", data="mine")
        await one.until(lambda: one.notes("notifications/message"))
        assert [note["data"] for note in one.notes("notifications/message")] == ["mine"]
        assert not other.notes("notifications/message")


async def test_it_is_remembered_over_a_restart_that_a_server_asks(tmp_path: Path) -> None:
    async with keeping(tmp_path, "stdio") as running:
        await use(running, "pid")
        await running.kept("keeping", '"asks":true')
    async with (
        keeping(tmp_path, "stdio") as running,
        client(running, roots_list=roots(A)) as one,
        client(running, roots_list=roots(B)) as other,
    ):
        found = list(await asyncio.gather(one.use("roots"), other.use("roots")))
        assert found == [[A], [B]]


async def test_clients_share_a_server_that_is_said_to_be_shared_but_nobodys_roots(
    tmp_path: Path,
) -> None:
    async with (
        keeping(tmp_path, "stdio", share=Share.ALWAYS) as running,
        client(running, roots_list=roots(A), elicitation_create={"action": "accept"}) as one,
        client(running, roots_list=roots(B)) as other,
    ):
        assert await one.use("pid") == await other.use("pid")
        assert [await one.use("roots"), await other.use("roots")] == [[], []]
        answer = await one.use("work", method="elicitation/create", text="who?")
        assert answer == {"action": "accept"}


async def test_clients_of_a_server_that_is_not_to_be_shared_have_a_child_each(
    tmp_path: Path,
) -> None:
    async with (
        keeping(tmp_path, "stdio", "--silent", share=Share.NEVER) as running,
        client(running) as one,
        client(running) as other,
    ):
        pids = [await one.use("pid"), await other.use("pid"), int(await use(running, "pid"))]
        assert len(set(pids)) == 3
        assert await one.use("pid") == pids[0]
        await gone(pids[2])  # a client without a session is gone with its call


async def test_an_idle_client_makes_room_for_another_and_a_busy_one_does_not(
    tmp_path: Path,
) -> None:
    async with (
        keeping(tmp_path, "stdio", max_clients=1) as running,
        client(running, roots_list=roots(A)) as one,
        client(running, roots_list=roots(B)) as other,
    ):
        first = await one.use("pid")
        assert await other.use("roots") == [B]
        await gone(first)
        assert await one.use("roots") == [A]
        asked = asyncio.Event()
        one.answers["sampling/createMessage"] = Later(asked)
        async with asyncio.TaskGroup() as tasks:
            working = tasks.create_task(
                one.use("work", method="sampling/createMessage", text="long")
            )
            await one.until(lambda: "sampling/createMessage" in one.received[-1])
            refused = await other.use("pid")
            assert "serves 1 client apart already" in refused["message"]
            asked.set()
        assert working.result() == {}


async def test_the_child_of_an_idle_client_ends_and_comes_back_with_its_roots(
    tmp_path: Path,
) -> None:
    async with (
        keeping(tmp_path, "stdio", idle_stop_s=1) as running,
        client(running, roots_list=roots(A)) as one,
    ):
        await gone(await one.use("pid"))
        assert await one.use("roots") == [A]


async def test_clients_share_an_http_server_that_opens_no_sessions(tmp_path: Path) -> None:
    async with (
        keeping(tmp_path, "http", "--silent", "--no-session") as running,
        client(running) as one,
        client(running) as other,
    ):
        assert await one.use("note", text="open") == "open"
        assert await other.use("note") == "open"
        assert not running.gateway.registry.owned


async def test_a_question_that_a_stateless_client_leaves_open_blocks_nobody(
    tmp_path: Path,
) -> None:
    able = {**META, "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}}}}
    arguments = {"method": "elicitation/create", "text": "who?"}
    message = call("tools/call", name="work", arguments=arguments, _meta=able)
    named = {"mcp_protocol_version": "2026-07-28", "mcp_method": "tools/call", "mcp_name": "work"}
    async with (
        keeping(tmp_path, "stdio", "--silent") as running,
        client(running, elicitation_create={"action": "accept"}) as one,
    ):
        for _ in range(3):
            answer = await (await running.post(message, **named)).json()
            assert answer["result"]["resultType"] == "input_required", answer
        answer = await one.use("work", method="elicitation/create", text="who?")
        assert answer == {"action": "accept"}


async def test_a_removed_server_ends_the_children_of_all_clients(tmp_path: Path) -> None:
    async with (
        keeping(tmp_path, "stdio") as running,
        client(running, roots_list=roots(A)) as one,
        client(running, roots_list=roots(B)) as other,
    ):
        pids = [await one.use("pid"), await other.use("pid")]
        await queries.remove_server(running.database, "keeping")
        await running.gateway.reload()
        for pid in pids:
            await gone(pid)
        assert not running.gateway.registry.owned


@pytest.mark.parametrize("kind", ["stdio", "http"])
async def test_a_tool_that_the_profile_hides_is_hidden_on_a_clients_own_connection_too(
    tmp_path: Path, kind: str
) -> None:
    async with (
        keeping(tmp_path, kind) as running,
        client(running, roots_list=roots(A)) as one,
    ):
        await queries.set_tool(
            running.database, "default", ToolSetting("keeping", "noted_x", enabled=False)
        )
        await running.gateway.reload()
        assert await one.use("note", text="x") == "x"
        own = next(iter(running.gateway.registry.owned_at("keeping")))[1]
        while "noted_x" not in str(own.catalog.lists):
            await one.use("pid")
        assert "noted_x" not in str(await one.ask("tools/list"))
        assert (await one.use("noted_x"))["message"] == "Unknown tool: noted_x"
        assert (await one.ask("made/up", name="noted_x"))["error"]["code"] == -32601
