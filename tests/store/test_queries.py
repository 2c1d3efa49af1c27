"""Servers and profiles survive the way through the database."""

from __future__ import annotations

import pytest

from local_mcp_gateway.database.pool import ConnectionPool
from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.store import queries
from local_mcp_gateway.store.model import (
    Member,
    Prefix,
    ProfileDefinition,
    ServerDefinition,
    ServerKind,
    ToolSetting,
)

TIME = ServerDefinition(
    "time", ServerKind.STDIO, command="python", args=("-m", "x y"), env={"TZ": "UTC"}, cwd="/tmp"
)
NOTES = ServerDefinition(
    "notes", ServerKind.HTTP, url="http://127.0.0.1:1/mcp", headers={"Authorization": "Bearer t"}
)


async def test_a_server_comes_back_as_it_was_stored(database: ConnectionPool) -> None:
    stored = await queries.add_server(database, TIME)
    assert stored.id
    assert (stored.command, stored.args, stored.env, stored.cwd) == (
        "python",
        ("-m", "x y"),
        {"TZ": "UTC"},
        "/tmp",
    )


async def test_a_second_server_of_one_name_is_refused(database: ConnectionPool) -> None:
    await queries.add_server(database, TIME)
    with pytest.raises(UsageProblem, match="already"):
        await queries.add_server(database, TIME)
    assert len(await queries.list_servers(database)) == 1


@pytest.mark.parametrize(
    "server",
    [
        ServerDefinition("a b", ServerKind.STDIO, command="x"),
        ServerDefinition("a", ServerKind.STDIO),
        ServerDefinition("a", ServerKind.HTTP, url="ftp://x"),
    ],
)
async def test_a_server_that_cannot_work_is_not_stored(
    database: ConnectionPool, server: ServerDefinition
) -> None:
    with pytest.raises(UsageProblem):
        await queries.add_server(database, server)


async def test_a_profile_keeps_the_order_and_the_active_flags_of_its_servers(
    database: ConnectionPool,
) -> None:
    await queries.add_server(database, TIME)
    await queries.add_server(database, NOTES)
    members = (Member("time"), Member("notes", active=False))
    await queries.add_profile(
        database, ProfileDefinition("work", prefix=Prefix.ALWAYS, members=members)
    )
    profile = await queries.get_profile(database, "work")
    assert (profile.members, profile.prefix) == (members, Prefix.ALWAYS)
    await queries.update_profile(
        database, "work", ProfileDefinition("play", members=tuple(reversed(members)))
    )
    assert (await queries.get_profile(database, "play")).members == tuple(reversed(members))


async def test_a_profile_that_names_an_unknown_server_is_not_stored_at_all(
    database: ConnectionPool,
) -> None:
    with pytest.raises(UsageProblem, match="no server 'ghost'"):
        await queries.add_profile(database, ProfileDefinition("x", members=(Member("ghost"),)))
    assert await queries.list_profiles(database) == ()


async def test_tool_settings_go_with_the_server_that_they_are_about(
    database: ConnectionPool,
) -> None:
    await queries.add_server(database, TIME)
    await queries.add_profile(database, ProfileDefinition("work", members=(Member("time"),)))
    setting = ToolSetting("time", "now", enabled=False, name="clock", description="What time is it")
    await queries.set_tool(database, "work", setting)
    assert (await queries.get_profile(database, "work")).tools == (setting,)
    await queries.remove_server(database, "time")
    assert (await queries.get_profile(database, "work")).tools == ()


async def test_removing_what_is_not_there_says_so(database: ConnectionPool) -> None:
    with pytest.raises(UsageProblem, match="no server 'x'"):
        await queries.remove_server(database, "x")
    with pytest.raises(UsageProblem, match="no profile 'x'"):
        await queries.remove_profile(database, "x")
