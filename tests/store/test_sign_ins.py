"""Sign-ins in their two tables: one client and one set of tokens for each server, sealed by who calls."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from local_mcp_gateway.database.pool import ConnectionPool
from local_mcp_gateway.formats import now_ms
from local_mcp_gateway.service.secrets import Keyring, SealedSignIns, seal_all
from local_mcp_gateway.store import queries
from local_mcp_gateway.store.encryption import MARK
from local_mcp_gateway.store.sign_ins import (
    Client,
    ClientKind,
    Grant,
    SignIn,
    list_values,
    load_sign_in,
    load_sign_ins,
    save_sign_in,
)
from tests.gateway.support import create_database, http

CLIENT = Client(
    "me", "https://a.example", ClientKind.DYNAMIC, token_endpoint="https://a.example/token"
)


async def test_what_is_stored_is_sealed_rotated_and_read_again(tmp_path: Path) -> None:
    async with ConnectionPool.open(create_database(tmp_path / "x.db")) as database:
        server = await queries.add_server(database, http("far", "https://far.example/mcp"))
        keyring = Keyring(tmp_path / "key")
        store = SealedSignIns(database, keyring)
        given = SignIn(server, CLIENT, "the-secret", "the-access", "the-refresh", "a b", 5, 7)
        assert await store.load(server) is None
        assert await store.save(given)
        assert await store.load(server) == given
        stored = await load_sign_in(database, server)
        assert stored is not None
        assert all(value.value.startswith(MARK) for value in stored.values)
        first = {value.key for value in await list_values(database)}
        keyring.renew()
        assert (await seal_all(database, {}, keyring))["resealed"] == 3  # type: ignore[index]
        assert {value.key for value in await list_values(database)}.isdisjoint(first)
        assert await store.load(server) == given
        assert "the-" not in repr(given)


async def test_tokens_that_were_replaced_meanwhile_stay(tmp_path: Path) -> None:
    async with ConnectionPool.open(create_database(tmp_path / "x.db")) as database:
        server = await queries.add_server(database, http("far", "https://far.example/mcp"))
        old = SignIn(server, CLIENT, access_token="old", updated_at=1)
        await save_sign_in(database, old)
        await save_sign_in(database, replace(old, access_token="login", updated_at=2))
        assert not await save_sign_in(database, replace(old, access_token="late"), since=1)
        kept = await load_sign_in(database, server)
        assert kept is not None
        assert kept.access_token == "login"
        await queries.remove_server(database, "far")
        assert not await save_sign_in(database, old)
        assert await load_sign_ins(database, [server]) == {}


async def test_rows_of_other_hands_are_read_as_far_as_they_go(tmp_path: Path) -> None:
    async with ConnectionPool.open(create_database(tmp_path / "x.db")) as database:
        server = await queries.add_server(database, http("far", "https://far.example/mcp"))
        await save_sign_in(database, SignIn(server, CLIENT, access_token="old", updated_at=1))
        for facts in ("[]", "nothing", '{"kind": "odd"}', '{"grant": 5, "resource": []}'):
            async with database.transaction() as writer:
                await writer.execute("UPDATE oauth_client_registrations SET metadata = ?", (facts,))
            found = await load_sign_in(database, server)
            assert found is not None
            assert (found.access_token, found.client.client_id) == ("old", "me")
            assert found.client.token_endpoint == ""


def test_who_has_to_sign_in() -> None:
    server = http("far", "https://far.example/mcp")
    none = SignIn(server, CLIENT)
    token = replace(none, access_token="a")
    past = now_ms() - 1
    assert none.is_needed
    assert not token.is_needed
    assert replace(token, expires_at=past).is_needed
    assert not replace(token, expires_at=past, refresh_token="r").is_needed
    assert not replace(none, client=replace(CLIENT, grant=Grant.CREDENTIALS)).is_needed
