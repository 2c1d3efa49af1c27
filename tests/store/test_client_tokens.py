"""Tokens of clients in the database: what is kept, and what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_mcp_gateway.database import ConnectionPool
from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.store import (
    CallRecord,
    ClientToken,
    add_token,
    hash_of_token,
    id_in_token,
    list_tokens,
    looks_like_token,
    new_token,
    remove_token,
    save_calls,
)
from tests.gateway.support import create_database


async def test_a_token_comes_back_without_its_text_and_goes_for_good(tmp_path: Path) -> None:
    token, text = new_token(ClientToken("ci", profiles=frozenset({"b", "a"}), expires_at=5))
    async with ConnectionPool.open(create_database(tmp_path / "x.db")) as database:
        stored = await add_token(database, token)
        assert (stored.id, stored.hash) == (id_in_token(text), hash_of_token(text))
        assert (stored.profiles, stored.expires_at) == (token.profiles, 5)
        assert (stored.reaches("a"), stored.reaches("c")) == (True, False)
        assert (stored.has_expired(4), stored.has_expired(5)) == (False, True)
        assert text not in str(await database.fetch_all("SELECT * FROM client_tokens"))
        with pytest.raises(UsageProblem, match="'ci' already"):
            await add_token(database, new_token(ClientToken("ci"))[0])
        with pytest.raises(UsageProblem, match="cannot be the name of a token"):
            await add_token(database, new_token(ClientToken("a b"))[0])
        await remove_token(database, "ci")
        assert await list_tokens(database) == ()
        with pytest.raises(UsageProblem, match="There is no token 'ci'"):
            await remove_token(database, "ci")


async def test_the_last_use_is_that_of_the_newest_call(tmp_path: Path) -> None:
    def call(at: int, holder: str | None, client: str | None) -> CallRecord:
        return CallRecord(at, "p", "s", "m", None, "ok", None, 1, 1, 1, None, None, holder, client)

    async with ConnectionPool.open(create_database(tmp_path / "x.db")) as database:
        await add_token(database, new_token(ClientToken("ci"))[0])
        calls = [call(1, "ci", "one"), call(2, "ci", "two"), call(3, None, "x"), call(4, "no", "y")]
        await save_calls(database, calls, keep=10)
        (used,) = await list_tokens(database)
        assert (used.last_used_at, used.last_client) == (2, "two")
        await save_calls(database, [call(5, "ci", None)], keep=10)
        (used,) = await list_tokens(database)
        assert (used.last_used_at, used.last_client) == (5, "two")


@pytest.mark.parametrize("text", ["", "lmg_", "lmg_0123456789abcdef_short", "sk-1", "lmg_é"])
def test_a_text_without_the_form_of_a_token_has_no_id(text: str) -> None:
    assert id_in_token(text) is None
    assert looks_like_token(text) is text.startswith("lmg_")
