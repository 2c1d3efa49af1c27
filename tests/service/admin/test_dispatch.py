"""What commands change, they change whole, whoever else changes something at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from local_mcp_gateway.database.pool import ConnectionPool
from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.service.admin.dispatch import Served, perform
from local_mcp_gateway.service.admin.own_address import OwnAddress
from local_mcp_gateway.service.secrets.keyring import Keyring
from local_mcp_gateway.store import queries
from tests.gateway.support import create_database

SERVED = Served("default", OwnAddress("127.0.0.1", 3001))


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[ConnectionPool]:
    async with ConnectionPool.open(create_database(tmp_path / "gateway.db")) as database:
        yield database


async def ask(database: ConnectionPool, verb: str, **arguments: Any) -> Any:
    keyring = Keyring(database.path.with_name("secrets.key"))
    return await perform(database, None, SERVED, keyring, verb, arguments)


async def names(database: ConnectionPool, profile: str) -> set[str]:
    return {member.server for member in (await queries.get_profile(database, profile)).members}


async def test_servers_that_are_added_at_the_same_time_are_all_in_the_profile(
    database: ConnectionPool,
) -> None:
    wanted = {f"s{number}" for number in range(6)}
    adding = (
        ask(database, "server.add", name=name, command="true", profile="p") for name in wanted
    )
    await asyncio.gather(*adding)
    assert await names(database, "p") == wanted


async def test_changes_of_one_profile_or_server_at_the_same_time_are_all_kept(
    database: ConnectionPool,
) -> None:
    for name in ("a", "b", "c"):
        await ask(database, "server.add", name=name, command="true", profile="first")
    await ask(database, "profile.add", name="p", servers=[])
    await asyncio.gather(
        *(ask(database, "profile.edit", name="p", add=[name]) for name in ("a", "b", "c")),
        *(ask(database, "server.edit", name="a", env={name: "1"}) for name in ("X", "Y", "Z")),
    )
    assert await names(database, "p") == {"a", "b", "c"}
    assert set((await queries.get_server(database, "a")).env) == {"X", "Y", "Z"}


@pytest.mark.parametrize("verb", ["server.add", "server.import"])
async def test_a_refused_command_leaves_nothing_behind(database: ConnectionPool, verb: str) -> None:
    document = {"mcpServers": {"a": {"command": "true"}, "b": {"command": "true"}}}
    given = {"name": "a", "command": "true"} if verb == "server.add" else {"document": document}
    with pytest.raises(UsageProblem):
        await ask(database, verb, profile="a/b", **given)
    assert await queries.list_servers(database) == ()
    assert await queries.list_profiles(database) == ()


@pytest.mark.parametrize(
    ("server", "change"),
    [
        ({"url": "http://h/mcp"}, {"env": {"A": "1"}}),
        ({"url": "http://h/mcp"}, {"cwd": "/tmp"}),
        ({"command": "true"}, {"headers": {"A": "1"}}),
    ],
)
async def test_what_a_server_cannot_have_is_refused_and_not_taken_in_silence(
    database: ConnectionPool, server: dict[str, Any], change: dict[str, Any]
) -> None:
    await ask(database, "server.add", name="s", profile="p", **server)
    with pytest.raises(UsageProblem, match="has no"):
        await ask(database, "server.edit", name="s", **change)
