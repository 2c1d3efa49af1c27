"""Definitions change in the database while the gateway serves."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.service.admin.servers import list_servers
from local_mcp_gateway.store import queries
from local_mcp_gateway.store.model import Member, Prefix, ProfileDefinition, ToolSetting
from tests.gateway.http.test_streams import WATCHED, subscribe
from tests.gateway.processes import alive
from tests.gateway.support import QUICK, Running, gateway_of, stdio
from tests.gateway.using import names, opened, session, use

PLAIN = stdio("plain", "plain.py")


async def add(running: Running, name: str, **changes: Any) -> None:
    await queries.add_server(running.database, replace(PLAIN, name=name, **changes))
    profile = await queries.get_profile(running.database, "default")
    members = (*profile.members, Member(name))
    await queries.update_profile(running.database, "default", replace(profile, members=members))
    await running.gateway.reload()


async def test_a_server_that_is_added_is_served_and_the_others_keep_running(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, PLAIN) as running:
        pid = await use(running, "pid")
        await add(running, "second")
        assert "second__echo" in await names(running)
        assert await use(running, "second__echo", x=1) == '{"x": 1}'
        assert await use(running, "pid") == pid


async def test_a_server_that_is_removed_ends_with_its_tools(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, PLAIN) as running:
        await add(running, "second")
        pid = int(await use(running, "second__pid"))
        await queries.remove_server(running.database, "second")
        await running.gateway.reload()
        assert not alive(pid)
        assert "second__echo" not in await names(running)
        assert "second" not in running.gateway.status()["servers"]


async def test_other_time_outs_and_payloads_are_in_force_for_the_next_call(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, PLAIN) as running:
        pid = await use(running, "pid")
        options = replace(QUICK, call_timeout_s=0.5, log_payloads=True)
        await running.gateway.reload(options)
        failed = await use(running, "sleep", seconds=30)
        assert "did not answer within 0.5 s" in failed["message"]
        await running.heard("call.finished", status="error")
        await running.gateway.calls.flush()
        *_, (request,) = await running.database.fetch_all("SELECT request FROM debug_logs")
        assert request == '{"name": "sleep", "arguments": {"seconds": 30}}'
        await running.gateway.reload(QUICK)
        assert await use(running, "pid") == pid  # the connection has stayed


async def test_a_server_that_is_edited_is_replaced_without_a_leak(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, PLAIN) as running:
        before = int(await use(running, "pid"))
        sleeping = asyncio.create_task(use(running, "sleep", seconds=30))
        await running.wrote("sleeping ")
        await queries.update_server(running.database, "plain", replace(PLAIN, env={"X": "1"}))
        await running.gateway.reload()
        assert (await sleeping)["code"] == -32001
        assert not alive(before)
        assert int(await use(running, "pid")) != before


async def test_a_reload_that_changes_nothing_disturbs_nothing(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, PLAIN) as running:
        pid = await use(running, "pid")
        for _ in range(3):
            await running.gateway.reload()
        assert await use(running, "pid") == pid


async def test_a_profile_hides_renames_and_describes_tools(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, PLAIN) as running:
        await use(running, "echo")
        for setting in (
            ToolSetting("plain", "die", enabled=False),
            ToolSetting("plain", "echo", name="say", description="Say it again."),
        ):
            await queries.set_tool(running.database, "default", setting)
        await running.gateway.reload()
        shown = await names(running)
        assert "say" in shown
        assert not {"die", "echo"} & set(shown)
        assert await use(running, "say", a=1) == '{"a": 1}'
        assert (await use(running, "die"))["message"] == "Unknown tool: die"
        assert (await use(running, "echo"))["message"] == "Unknown tool: echo"


async def test_profiles_show_what_they_hold_in_their_own_way(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, PLAIN) as running:
        always = ProfileDefinition("always", prefix=Prefix.ALWAYS, members=(Member("plain"),))
        await queries.add_profile(running.database, always)
        await queries.add_profile(running.database, ProfileDefinition("empty"))
        await running.gateway.reload()
        assert (await names(running, "/mcp/always"))[0] == "plain__echo"
        assert await names(running, "/mcp/empty") == []
        assert (await names(running))[0] == "echo"


@pytest.mark.parametrize("change", ["server off", "server gone", "profile empty", "tool hidden"])
async def test_clients_hear_of_every_change_of_what_their_profile_shows(
    tmp_path: Path, change: str
) -> None:
    """The first server of the profile is off: it has no clients, but the profile has."""
    servers = (replace(PLAIN, name="off"), PLAIN)
    async with gateway_of(tmp_path, *servers) as running:
        database = running.database
        profile = await queries.get_profile(database, "default")
        profile = replace(profile, members=(Member("off", active=False), Member("plain")))
        await queries.update_profile(database, "default", profile)
        await running.gateway.reload()
        before = await names(running)
        headers = await session(running)
        client = running.gateway.sessions.of_stream(headers["mcp_session_id"])
        assert client is not None
        client.take()
        if change == "server off":
            await queries.update_server(database, "plain", replace(PLAIN, active=False))
        elif change == "server gone":
            await queries.remove_server(database, "plain")
        elif change == "profile empty":
            await queries.update_profile(database, "default", replace(profile, members=()))
        else:
            setting = ToolSetting("plain", "die", enabled=False)
            await queries.set_tool(database, "default", setting)
        await running.gateway.reload()
        async with opened(running, headers) as stream:
            told = b""
            with anyio.fail_after(30):
                while b"tools/list_changed" not in told:
                    told += await stream.reply.content.readany()
        assert await names(running) == [name for name in before if name != "die"] * (
            change == "tool hidden"
        )


async def test_a_change_of_one_profile_is_told_to_its_own_clients_only(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, PLAIN) as running:
        other = ProfileDefinition("other", members=(Member("plain"),))
        await queries.add_profile(running.database, other)
        await running.gateway.reload()
        await names(running)
        headers = await session(running)
        client = running.gateway.sessions.of_stream(headers["mcp_session_id"])
        assert client is not None
        client.take()
        await queries.set_tool(running.database, "other", ToolSetting("plain", "die", name="end"))
        await running.gateway.reload()
        assert "end" in await names(running, "/mcp/other")
        assert client.take() == []


async def test_an_edited_server_that_a_client_watches_is_subscribed_to_again(
    tmp_path: Path,
) -> None:
    async with gateway_of(tmp_path, WATCHED) as running:
        headers = await session(running)
        await subscribe(running, headers)
        await running.wrote("subscribed watch://it")
        async with opened(running, headers):
            running.said.clear()
            edited = replace(WATCHED, env={"X": "1"})
            await queries.update_server(running.database, "watched", edited)
            await running.gateway.reload()
            await running.wrote("subscribed watch://it")


async def test_an_idle_child_is_stopped_and_started_by_the_next_call(tmp_path: Path) -> None:
    options = replace(QUICK, idle_stop_s=1)
    async with gateway_of(tmp_path, PLAIN, options=options) as running:
        pid = int(await use(running, "pid"))
        await running.heard("upstream.stopped", server="plain")
        assert not alive(pid)
        assert running.gateway.status()["servers"]["plain"]["state"] == "idle"
        assert int(await use(running, "pid")) != pid


async def test_calls_are_written_to_the_database_without_their_payloads(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, PLAIN) as running:
        await use(running, "echo", secret="s3cret")
        await use(running, "fail")
        await running.gateway.calls.flush()
        ok, failed = await running.database.fetch_all(
            "SELECT server, method, target, status, error, duration_us > 0, request, response"
            " FROM debug_logs"
        )
        assert tuple(ok) == ("plain", "tools/call", "echo", "ok", None, 1, None, None)
        assert tuple(failed)[3:5] == ("error", "-32050 failed")


@pytest.mark.parametrize("column", ["args", "env", "headers", "sandbox"])
@pytest.mark.parametrize("value", ["garbage", "", "7", '[{"a":1}]', '{"a":1}', b"\xff"])
async def test_a_server_whose_row_is_none_is_skipped_and_told(
    tmp_path: Path, column: str, value: str | bytes
) -> None:
    async with gateway_of(tmp_path, replace(PLAIN, name="odd"), PLAIN) as running:
        database = running.database
        async with database.transaction() as writer:
            await writer.execute(
                f"UPDATE mcp_servers SET {column} = ? WHERE name = 'odd'", (value,)
            )
        await running.gateway.reload()
        skipped = await running.heard("server.skipped", server="odd")
        assert f"'odd' cannot be read: {column} of its row" in skipped["message"]
        assert (await names(running))[0] == "echo"
        for reading in (list_servers(database, {}), queries.get_server(database, "odd")):
            with pytest.raises(UsageProblem, match="cannot be read"):
                await reading
        await queries.remove_server(database, "odd")
        assert [server.name for server in await queries.list_servers(database)] == ["plain"]
