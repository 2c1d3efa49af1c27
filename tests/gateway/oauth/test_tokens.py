"""A token is refreshed ahead of its end, once for all; what cannot be refreshed needs a person, and says so."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from local_mcp_gateway.errors import GatewayError
from local_mcp_gateway.formats import now_ms
from local_mcp_gateway.gateway.oauth import tokens
from local_mcp_gateway.store import encryption
from tests.gateway.oauth.signing import HOUR_MS, opened, signed_in
from tests.issuer import Issuer

LOGIN = "`server login far`"


async def test_callers_at_the_end_of_a_token_wait_for_one_refresh(
    tmp_path: Path, issuer: Issuer
) -> None:
    async with signed_in(tmp_path, issuer) as signed:
        await signed.age(30_000)
        before = issuer.set(token="slow")["seen"].get("mcp")
        calls = [asyncio.create_task(signed.call()) for _ in range(32)]
        await asyncio.to_thread(issuer.has_seen, "refresh_token")
        assert issuer.set(go=True, token="")["seen"].get("mcp") == before
        assert len(set(await asyncio.gather(*calls))) == 1
        assert issuer.seen("refresh_token") == 1
        assert issuer.seen("401") == 1, "that of the login"
        assert issuer.last["refresh_token"]["resource"] == issuer.url
        assert issuer.last["refresh_token"]["scope"] == "read offline_access"


async def test_a_call_that_has_its_connection_opens_no_sealed_value(
    tmp_path: Path, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened_values: list[object] = []
    real = encryption._open

    def counted(entry: Any, *arguments: Any) -> str:
        opened_values.append(entry)
        return real(entry, *arguments)

    monkeypatch.setattr(encryption, "_open", counted)
    async with signed_in(tmp_path, issuer) as signed:
        assert not isinstance(await signed.call(), dict)
        assert opened_values, "it was counted"
        opened_values.clear()
        for _ in range(3):
            assert not isinstance(await signed.call(), dict)
        assert opened_values == []


async def test_a_call_that_leaves_does_not_end_the_refresh(tmp_path: Path, issuer: Issuer) -> None:
    async with signed_in(tmp_path, issuer) as signed:
        await signed.age(-1)
        issuer.set(token="slow")
        call = asyncio.create_task(signed.call())
        await asyncio.to_thread(issuer.has_seen, "refresh_token")
        call.cancel()
        leaving = asyncio.create_task(signed.running.gateway._close())
        issuer.set(go=True, token="")
        await leaving
        assert signed.running.find("token.refreshed", server="far")
        assert await signed.call()
        assert issuer.seen("refresh_token") == 1


async def test_a_token_that_is_revoked_is_replaced_and_the_call_repeated(
    tmp_path: Path, issuer: Issuer
) -> None:
    async with signed_in(tmp_path, issuer) as signed:
        issuer.set(revoke=True)
        assert await signed.call()
        assert issuer.seen("refresh_token") == 1
        assert issuer.seen("authorize") == 1


@pytest.mark.parametrize(
    "refusal", [{"token": "invalid_grant"}, {"error": {"error": "bad_refresh_token"}}]
)
async def test_a_refused_refresh_needs_a_sign_in_and_is_not_tried_again(
    tmp_path: Path, issuer: Issuer, refusal: dict[str, object]
) -> None:
    async with signed_in(tmp_path, issuer) as signed:
        issuer.set(revoke=True, **refusal)
        assert LOGIN in await signed.refused()
        await signed.running.until(lambda: signed.state["state"] == "needs_sign_in")
        assert LOGIN in await signed.refused()
        assert issuer.seen("refresh_token") == 1
    issuer.set(reset=True)
    async with opened(tmp_path, issuer) as signed:
        assert LOGIN in await signed.refused()
        assert issuer.set()["seen"] == {}
        (shown,) = await signed.person.ask("server.list")
        assert shown["sign_in"]["needed"] is True
        await signed.person.log_in("far")
        assert await signed.call()


@pytest.mark.parametrize("fault", ["500", "html", "429"])
async def test_an_issuer_that_is_down_is_not_taken_for_a_refusal(
    tmp_path: Path, issuer: Issuer, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "FIRST_PAUSE_S", 3600.0)
    async with signed_in(tmp_path, issuer) as signed:
        await signed.age(30_000)
        issuer.set(token=fault)
        assert not isinstance(await signed.call(), dict), "the old token is valid"
        await signed.age(-1)
        assert "cannot be refreshed now" in await signed.refused()
        tries = issuer.seen("refresh_token")
        assert "cannot be refreshed now" in await signed.refused()
        assert issuer.seen("refresh_token") == tries
        issuer.set(token="")
        monkeypatch.setattr(tokens, "FIRST_PAUSE_S", 0.0)
        await signed.running.gateway.reload()
        assert not isinstance(await signed.call(), dict)
        assert issuer.seen("authorize") == 1


async def test_an_issuer_may_refuse_a_refresh_as_long_as_the_token_is_valid(
    tmp_path: Path, issuer: Issuer
) -> None:
    async with signed_in(tmp_path, issuer) as signed:
        await signed.age(30_000)
        issuer.set(token="invalid_grant")
        assert not isinstance(await signed.call(), dict)
        assert not isinstance(await signed.call(), dict)
        assert issuer.seen("refresh_token") == 1
        await signed.age(-1)
        issuer.set(token="")
        assert not isinstance(await signed.call(), dict)


async def test_a_server_that_refuses_its_own_new_tokens_is_not_asked_for_more(
    tmp_path: Path, issuer: Issuer
) -> None:
    async with signed_in(tmp_path, issuer) as signed:
        issuer.set(server="401")
        assert LOGIN in await signed.refused()
        assert LOGIN in await signed.refused()
        assert issuer.seen("refresh_token") <= 1


async def test_a_restored_token_that_was_used_up_needs_a_sign_in(
    tmp_path: Path, issuer: Issuer
) -> None:
    async with signed_in(tmp_path, issuer) as signed:
        await signed.age(-1)
        old = (await signed.tokens())[0]
        assert not isinstance(await signed.call(), dict)
        assert (await signed.tokens())[0] != old
        async with signed.running.database.transaction() as writer:
            await writer.execute("DELETE FROM oauth_tokens")
            await writer.execute(f"INSERT INTO oauth_tokens VALUES ({', '.join('?' * 7)})", old)
    issuer.set(reset=True)
    async with opened(tmp_path, issuer) as signed:
        assert LOGIN in await signed.refused()
        assert LOGIN in await signed.refused()
        assert issuer.seen("refresh_token") == 1
        assert await signed.tokens() == []


async def test_a_login_during_a_refresh_wins(tmp_path: Path, issuer: Issuer) -> None:
    async with signed_in(tmp_path, issuer) as signed:
        begun = await signed.person.begin("far", scope="read write")
        answer = await signed.person.browse(begun)
        await signed.age(-1)
        issuer.set(token="slow")
        call = asyncio.create_task(signed.call())
        await asyncio.to_thread(issuer.has_seen, "refresh_token")
        issuer.set(token="")
        given = {"name": "far", "login": begun["login"], "answer": answer}
        await signed.person.ask("server.signed_in", **given)
        (kept,) = await signed.tokens()
        issuer.set(go=True)
        assert not isinstance(await call, dict)
        assert await signed.tokens() == [kept]
        assert issuer.last["authorize"]["scope"] == "read write"


async def test_missing_rights_are_asked_for_at_the_next_login(
    tmp_path: Path, issuer: Issuer
) -> None:
    async with signed_in(tmp_path, issuer) as signed:
        issuer.set(needs="read write")
        assert "more rights (read write): `server login far`" in await signed.refused()
        assert "more rights" in await signed.refused()
        assert issuer.seen("refresh_token") == 0
        await signed.person.log_in("far")
        assert issuer.last["authorize"]["scope"] == "read offline_access write"
        assert await signed.call() == issuer.last["authorize"]["client_id"]


async def test_a_machine_needs_nobody_for_its_tokens_and_their_rights(
    tmp_path: Path, issuer: Issuer
) -> None:
    async with opened(tmp_path, issuer) as signed:
        client = {
            "client_id": "robot 1",
            "client_secret": "s:e/c ret",
            "grant": "client_credentials",
        }
        issuer.set(refresh=True)
        await signed.person.ask("server.edit", name="far", client=client)
        await signed.person.log_in("far")
        assert await signed.call() == "robot 1"
        assert issuer.last["by"] == "basic"
        assert issuer.last["secret"] == "s:e/c ret"
        await signed.age(-1)
        assert await signed.call() == "robot 1"
        issuer.set(needs="read write")
        assert await signed.call() == "robot 1"
        assert issuer.seen("client_credentials") == 3
        assert issuer.seen("refresh_token") == 0, "a machine needs none (RFC 6749, 4.4.3)"
        assert issuer.seen("authorize") == issuer.seen("register") == 0


async def test_a_registration_that_a_refresh_finds_forgotten_is_made_again_at_the_next_login(
    tmp_path: Path, issuer: Issuer
) -> None:
    async with signed_in(tmp_path, issuer) as signed:
        issuer.set(revoke=True, token="invalid_client")
        assert LOGIN in await signed.refused()
        issuer.set(token="")
        await signed.person.log_in("far")
        assert issuer.seen("register") == 2
        assert await signed.call() == issuer.last["authorize"]["client_id"]


async def test_a_clock_that_was_a_day_wrong_costs_one_refresh(
    tmp_path: Path, issuer: Issuer
) -> None:
    async with signed_in(tmp_path, issuer) as signed:
        issuer.set(revoke=True)  # it has expired, and the clock says that it lives for a day
        await signed.age(24 * HOUR_MS)
        assert not isinstance(await signed.call(), dict)
        await signed.age(-24 * HOUR_MS)
        assert not isinstance(await signed.call(), dict)
        assert not isinstance(await signed.call(), dict)
        assert issuer.seen("refresh_token") == 2


async def test_a_server_that_wants_a_token_only_after_its_handshake_needs_a_sign_in(
    tmp_path: Path, issuer: Issuer
) -> None:
    issuer.set(open=["initialize", "notifications/initialized"])
    async with opened(tmp_path, issuer) as signed:
        with pytest.raises(GatewayError, match=LOGIN):
            await signed.person.ask("server.test", name="far")
        assert LOGIN in await signed.refused()
        await signed.running.until(lambda: signed.state["state"] == "needs_sign_in")
        await signed.person.log_in("far")
        assert await signed.call() == issuer.last["authorize"]["client_id"]


async def test_a_server_that_is_edited_during_a_refresh_loses_no_token(
    tmp_path: Path, issuer: Issuer
) -> None:
    async with signed_in(tmp_path, issuer) as signed:
        await signed.age(-1)
        issuer.set(token="slow")
        call = asyncio.create_task(signed.call())
        await asyncio.to_thread(issuer.has_seen, "refresh_token")
        await signed.person.ask("server.edit", name="far", headers={"X-Team": "blue"})
        await signed.running.gateway.reload()
        second = asyncio.create_task(signed.call())
        await signed.running.until(lambda: signed.state["state"] != "ready")
        issuer.set(go=True, token="")
        await call
        assert not isinstance(await second, dict)
        assert issuer.seen("refresh_token") == 1


async def test_a_login_during_a_refresh_that_is_refused_wins(
    tmp_path: Path, issuer: Issuer
) -> None:
    async with signed_in(tmp_path, issuer) as signed:
        begun = await signed.person.begin("far")
        answer = await signed.person.browse(begun)
        await signed.age(-1)
        issuer.set(token="slow")
        call = asyncio.create_task(signed.call())
        await asyncio.to_thread(issuer.has_seen, "refresh_token")
        issuer.set(token="")
        given = {"name": "far", "login": begun["login"], "answer": answer}
        await signed.person.ask("server.signed_in", **given)
        issuer.set(go=True, token="invalid_grant")
        assert not isinstance(await call, dict)
        assert not signed.running.find("token.refused")
        assert not isinstance(await signed.call(), dict)


async def test_a_logout_during_a_refresh_revokes_what_it_brings(
    tmp_path: Path, issuer: Issuer
) -> None:
    issuer.set(forget=True)
    async with signed_in(tmp_path, issuer) as signed:
        await signed.age(-1)
        issuer.set(token="slow")
        call = asyncio.create_task(signed.call())
        await asyncio.to_thread(issuer.has_seen, "refresh_token")
        leaving = asyncio.create_task(signed.person.ask("server.logout", name="far"))
        issuer.set(go=True, token="")
        assert (await leaving)["revoked"] is True
        await call
        assert issuer.set()["live"] == 0
        assert await signed.tokens() == []


async def test_a_clock_that_is_set_back_does_not_prolong_a_pause(
    tmp_path: Path, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "FIRST_PAUSE_S", 0.0)
    async with signed_in(tmp_path, issuer) as signed:
        with monkeypatch.context() as a_day_ahead:
            a_day_ahead.setattr(tokens, "now_ms", lambda: now_ms() + 24 * HOUR_MS)
            issuer.set(token="500")
            assert "cannot be refreshed now" in await signed.refused()
        issuer.set(token="", revoke=True)
        assert not isinstance(await signed.call(), dict)


async def test_a_reload_during_a_call_that_needs_more_rights_changes_nothing_of_it(
    tmp_path: Path, issuer: Issuer
) -> None:
    async with signed_in(tmp_path, issuer) as signed:
        issuer.set(needs="read write", hold="tools/call")
        call = asyncio.create_task(signed.refused())
        await asyncio.to_thread(issuer.has_seen, "held")
        await signed.running.gateway.reload()
        issuer.set(go=True, hold="")
        assert "more rights (read write): `server login far`" in await call


@pytest.mark.parametrize("another_call", [True, False])
async def test_tokens_that_cannot_be_stored_are_used_and_stored_as_soon_as_it_can_be_done(
    tmp_path: Path, issuer: Issuer, *, another_call: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "SAVE_AGAIN_S", 0.0)
    async with signed_in(tmp_path, issuer) as signed:
        await signed.age(-1)
        async with signed.running.database.transaction() as writer:
            await writer.execute(
                "CREATE TRIGGER no_room BEFORE INSERT ON oauth_tokens"
                " BEGIN SELECT RAISE(ABORT, 'no room'); END"
            )
        assert not isinstance(await signed.call(), dict)
        assert not isinstance(await signed.call(), dict)
        assert signed.running.find("token.save_failed", server="far")
        (old,) = await signed.tokens()
        async with signed.running.database.transaction() as writer:
            await writer.execute("DROP TRIGGER no_room")
        await signed.running.gateway.reload()
        if another_call:
            assert not isinstance(await signed.call(), dict)
            assert await signed.tokens() != [old]
    async with opened(tmp_path, issuer) as signed:
        assert not isinstance(await signed.call(), dict)
        assert issuer.seen("refresh_token") == 1
