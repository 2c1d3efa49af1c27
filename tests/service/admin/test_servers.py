"""Servers are described without their secrets, and made from what a person gives."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from local_mcp_gateway.database.pool import ConnectionPool
from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.log import HIDDEN
from local_mcp_gateway.service.admin import server_as_json, servers
from local_mcp_gateway.store import ServerDefinition, ServerKind, queries
from tests.gateway.support import create_database


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[ConnectionPool]:
    async with ConnectionPool.open(create_database(tmp_path / "gateway.db")) as database:
        for name in ("time", "notes"):
            await queries.add_server(database, ServerDefinition(name, ServerKind.STDIO, "python"))
        yield database


def test_values_are_shown_only_where_secrets_are_asked_for() -> None:
    server = ServerDefinition("time", ServerKind.STDIO, "python", env={"TOKEN": "geheim"})
    assert server_as_json(server)["env"] == {"TOKEN": HIDDEN}
    assert server_as_json(server, secrets=True)["env"] == {"TOKEN": "geheim"}


async def test_servers_are_listed_by_name_with_their_profiles(database: ConnectionPool) -> None:
    listed: Any = await servers.list_servers(database, {})
    assert [server["name"] for server in listed] == ["notes", "time"]
    assert all(server["profiles"] == [] for server in listed)


async def test_a_server_is_removed_once(database: ConnectionPool) -> None:
    assert await servers.remove_server(database, {"name": "time"}) == {"removed": "time"}
    with pytest.raises(UsageProblem, match="There is no server 'time'"):
        await servers.remove_server(database, {"name": "time"})


async def test_nothing_is_approved_where_nothing_waits(database: ConnectionPool) -> None:
    with pytest.raises(UsageProblem, match="is not waiting for an approval"):
        await servers.approve_tools(database, {"name": "time", "tools": {"now": None}})
