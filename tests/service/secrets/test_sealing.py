"""Values are sealed before they are stored, and sealed again with a newer key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from local_mcp_gateway.database.pool import ConnectionPool
from local_mcp_gateway.service.secrets import Keyring, seal_all, seal_new, seal_values
from local_mcp_gateway.store import ServerDefinition, ServerKind, entries, has_sealed, queries
from tests.gateway.support import create_database

PLAIN = ServerDefinition(
    "time", ServerKind.STDIO, command="python", env={"TOKEN": "geheim", "ZONE": "UTC"}
)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[ConnectionPool]:
    async with ConnectionPool.open(create_database(tmp_path / "gateway.db")) as database:
        yield database


async def test_a_new_server_gets_an_id_and_every_value_is_sealed(
    database: ConnectionPool, path: Path
) -> None:
    keyring = Keyring(path)
    (sealed,) = await seal_new(database, keyring, [PLAIN])
    assert sealed.id
    assert all(entry.sealed for entry in entries(sealed))
    assert keyring.open(sealed).env == PLAIN.env


async def test_a_server_without_values_makes_no_key(database: ConnectionPool, path: Path) -> None:
    await seal_new(database, Keyring(path), [replace(PLAIN, env={})])
    assert not path.exists()


async def test_only_what_is_set_is_sealed_in_a_change(database: ConnectionPool, path: Path) -> None:
    keyring = Keyring(path)
    old = await queries.add_server(database, PLAIN)
    changes = {"env": {"TOKEN": "neu", "ZONE": None}, "cwd": "/tmp"}
    sealed = await seal_values(database, keyring, old, changes)
    assert sealed["cwd"] == "/tmp"
    assert sealed["env"]["ZONE"] is None
    changed = replace(old, env={"TOKEN": sealed["env"]["TOKEN"]})
    assert keyring.open(changed).env == {"TOKEN": "neu"}


async def test_all_values_are_sealed_once_and_again_with_a_newer_key(
    database: ConnectionPool, path: Path
) -> None:
    keyring = Keyring(path)
    await queries.add_server(database, PLAIN)
    first = await seal_all(database, {}, keyring)
    assert isinstance(first, dict)
    assert (first["sealed"], first["resealed"], first["unreadable"]) == (2, 0, [])
    new = keyring.renew()
    second = await seal_all(database, {}, keyring)
    assert isinstance(second, dict)
    assert (second["key"], second["sealed"], second["resealed"]) == (new.id, 0, 2)
    (stored,) = await queries.list_servers(database)
    assert has_sealed(stored)
    assert keyring.open(stored).env == PLAIN.env


async def test_a_value_whose_key_is_lost_is_named_and_left_as_it_is(
    database: ConnectionPool, path: Path, tmp_path: Path
) -> None:
    (sealed,) = await seal_new(database, Keyring(path), [replace(PLAIN, env={"TOKEN": "x"})])
    await queries.add_server(database, sealed)
    other = Keyring(tmp_path / "other" / "secrets.key")
    other.make()
    done = await seal_all(database, {}, other)
    assert isinstance(done, dict)
    (lost,) = done["unreadable"]
    assert (lost["server"], lost["column"], lost["name"]) == ("time", "env", "TOKEN")
    (stored,) = await queries.list_servers(database)
    assert stored.env == sealed.env
