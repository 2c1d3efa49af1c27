"""Profiles are described, edited and checked against their servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from local_mcp_gateway.database.pool import ConnectionPool
from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.service.admin import profiles
from local_mcp_gateway.store import ServerDefinition, ServerKind, queries
from tests.gateway.support import create_database


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[ConnectionPool]:
    async with ConnectionPool.open(create_database(tmp_path / "gateway.db")) as database:
        for name in ("time", "notes"):
            await queries.add_server(database, ServerDefinition(name, ServerKind.STDIO, "python"))
        yield database


async def added(database: ConnectionPool, *servers: str) -> dict[str, Any]:
    given = {"name": "work", "servers": list(servers), "description": None, "prefix": "auto"}
    done = await profiles.add_profile(database, given)
    assert isinstance(done, dict)
    return done


async def test_a_profile_lists_its_servers_in_the_order_given(database: ConnectionPool) -> None:
    profile = await added(database, "notes", "time")
    assert profile["name"] == "work"
    assert [server["name"] for server in profile["servers"]] == ["notes", "time"]
    assert await profiles.show_profile(database, {"name": "work"}) == profile
    assert await profiles.list_profiles(database, {}) == [profile]


async def test_a_profile_that_is_removed_leaves_its_servers(database: ConnectionPool) -> None:
    await added(database, "time")
    assert await profiles.remove_profile(database, {"name": "work"}) == {"removed": "work"}
    assert await profiles.list_profiles(database, {}) == []
    assert len(await queries.list_servers(database)) == 2


async def test_a_profile_of_an_unknown_server_is_refused(database: ConnectionPool) -> None:
    with pytest.raises(UsageProblem, match="There is no server 'nobody'"):
        await added(database, "nobody")
    assert await profiles.list_profiles(database, {}) == []


async def test_an_edit_changes_what_is_given_and_keeps_the_rest(database: ConnectionPool) -> None:
    await added(database, "notes", "time")
    change = {"name": "work", "rename": "office", "disable": ["notes"], "prefix": "never"}
    edited: Any = await profiles.edit_profile(database, change)
    assert (edited["name"], edited["prefix"]) == ("office", "never")
    assert [(one["name"], one["active"]) for one in edited["servers"]] == [
        ("notes", False),
        ("time", True),
    ]
    less: Any = await profiles.edit_profile(database, {"name": "office", "remove": ["notes"]})
    assert [server["name"] for server in less["servers"]] == ["time"]
    with pytest.raises(UsageProblem, match="has no server 'notes'"):
        await profiles.edit_profile(database, {"name": "office", "enable": ["notes"]})
