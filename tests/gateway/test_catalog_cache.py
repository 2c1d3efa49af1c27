"""What a gateway remembers of lists and names over a restart, also after somebody has edited it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from local_mcp_gateway.database.pool import ConnectionPool
from local_mcp_gateway.service.admin.servers import altered_tools
from local_mcp_gateway.store import queries
from local_mcp_gateway.store.model import Member
from tests.gateway.messages import call
from tests.gateway.support import gateway_of, stdio
from tests.gateway.test_gateway import PLAIN, add
from tests.gateway.using import names, use


async def test_names_stay_with_their_servers_over_a_restart_until_a_person_reorders_them(
    tmp_path: Path,
) -> None:
    described = tmp_path / "description"
    described.write_text("")  # `first` has no tool `echo` yet
    first = stdio("first", "plain.py", "--describe", str(described))
    second = stdio("second", "plain.py")

    async with gateway_of(tmp_path, first, second) as running:
        await running.post(call("tools/list"))
        assert "first__echo" not in await names(running)
        described.write_text("It came later.")
        await use(running, "grow", name="more")
        await running.until(lambda: running.find("catalog.saved", lists=["tools"]))
        assert {"echo", "first__echo", "grow", "second__grow"} <= set(await names(running))
        await running.until(lambda: running.find("catalog.saved", profile="default"))
    async with gateway_of(tmp_path, first, second) as running:
        for _ in range(2):  # from what is remembered, and once both are met
            shown = set(await names(running))
            assert {"echo", "first__echo", "grow", "second__grow"} <= shown
            assert not {"first__grow", "second__echo"} & shown
            assert await use(running, "first__echo", a=1) == '{"a": 1}'
            assert await use(running, "pid") != await use(running, "second__pid")
        profile = await queries.get_profile(running.database, "default")
        reordered = replace(profile, members=(Member("second"), Member("first")))
        await queries.update_profile(running.database, "default", reordered)
        await running.gateway.reload()
        assert {"echo", "first__echo", "grow", "first__grow"} <= set(await names(running))


async def test_names_that_held_in_an_order_do_not_hold_in_one_that_was_given_while_nothing_ran(
    tmp_path: Path,
) -> None:
    described = tmp_path / "description"
    described.write_text("")
    first = stdio("first", "plain.py", "--describe", str(described))
    async with gateway_of(tmp_path, first, stdio("second", "plain.py")) as running:
        await names(running)
        described.write_text("It came later.")
        await use(running, "grow", name="more")
        await running.kept("first", "It came later.")
        assert "first__echo" in await names(running)
        await running.heard("catalog.saved", profile="default")
        running.said.clear()
        await add(running, "third")
        assert {"first__echo", "third__echo"} <= set(await names(running))
        await running.heard("catalog.saved", profile="default")
    async with ConnectionPool.open(tmp_path / "gateway.db") as database:
        profile = await queries.get_profile(database, "default")
        first_three = (profile.members[2], *profile.members[:2])
        await queries.update_profile(database, "default", replace(profile, members=first_three))
    async with gateway_of(tmp_path) as running:
        assert {"echo", "first__echo", "second__echo"} <= set(await names(running))
        await queries.remove_profile(running.database, "default")
        await running.gateway.reload()
        rows = await running.database.fetch_all("SELECT key FROM gateway_settings")
        assert [key for (key,) in rows if key.startswith("names.")] == []


@pytest.mark.parametrize("kind", ["initialize", "tools"])
@pytest.mark.parametrize("body", ["garbage", "[1,", "7", ""])
async def test_a_remembered_list_that_somebody_edited_is_fetched_again(
    tmp_path: Path, kind: str, body: str
) -> None:
    async with gateway_of(tmp_path, PLAIN) as running:
        before = await names(running)
        await running.kept("plain", "echo")
        async with running.database.transaction() as writer:
            await writer.execute(
                "UPDATE mcp_server_catalog_cache SET body = ? WHERE kind = ?", (body, kind)
            )
            await writer.execute("UPDATE approved_tools SET body = 'garbage'")
        (server,) = await queries.list_servers(running.database)
        await altered_tools(running.database, server.id)
    async with gateway_of(tmp_path, PLAIN) as running:
        assert (await running.heard("catalog.load_failed"))["server"] == "plain"
        assert await names(running) == before
