"""The verbs of a sign-in, and what they refuse before any server is contacted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from local_mcp_gateway.database import ConnectionPool
from local_mcp_gateway.errors import GatewayError, UpstreamProblem
from local_mcp_gateway.service.secrets import Keyring
from tests.gateway.support import TWICE, create_database
from tests.issuer import Issuer, Person


@pytest.fixture
async def person(tmp_path: Path) -> AsyncIterator[Person]:
    """A person without a daemon."""
    async with ConnectionPool.open(create_database(tmp_path / "x.db")) as database:
        yield Person(database, None, Keyring(tmp_path / "key"))


async def add(person: Person, url: str, **more: object) -> None:
    await person.ask("server.add", name="far", url=url, **more)


async def test_without_a_daemon_a_login_is_stored_for_the_next_start(
    person: Person, issuer: Issuer
) -> None:
    await add(person, issuer.url)
    done = await person.log_in("far")
    shown = await person.ask("server.show", name="far", secrets=True)
    assert shown["sign_in"] == {key: value for key, value in done.items() if key != "signed_in"}
    assert shown["sign_in"]["needed"] is False
    assert "access-" not in str(shown) + str(done)
    assert (await person.ask("server.logout", name="far"))["had_tokens"] is True
    assert (await person.ask("server.logout", name="far"))["had_tokens"] is False
    assert (await person.ask("server.show", name="far"))["sign_in"] is None


async def test_a_command_and_a_server_with_a_header_need_no_login(person: Person) -> None:
    await person.ask("server.add", name="near", command=TWICE.command, args=list(TWICE.args))
    with pytest.raises(GatewayError, match="is a command, and nobody signs in"):
        await person.begin("near")
    await add(person, "http://127.0.0.1:9/mcp", headers={"authorization": "Bearer x"})
    with pytest.raises(GatewayError, match="has an Authorization header"):
        await person.begin("far")


async def test_a_server_that_is_not_there_or_asks_for_nothing_is_told(
    person: Person, issuer: Issuer
) -> None:
    await add(person, "http://127.0.0.1:9/mcp")
    with pytest.raises(GatewayError, match=r"The sign-in to 'far' failed: .*no connection"):
        await person.begin("far")
    await person.ask("server.edit", name="far", url=f"{issuer.origin}/nothing")
    with pytest.raises(GatewayError, match="it does not ask for a sign-in"):
        await person.begin("far")
    for url in ("https://a..invalid/mcp", "https://1.2.3.4.5/mcp"):
        await person.ask("server.edit", name="far", url=url)
        with pytest.raises(UpstreamProblem, match="its URL is not valid"):
            await person.begin("far")
    await person.ask("server.edit", name="far", url="https://127.0.0.1:9/mcp", ca="/nothing")
    with pytest.raises(UpstreamProblem, match="the certificates in /nothing cannot be read"):
        await person.begin("far")


async def test_a_client_that_signs_in_by_itself_needs_a_secret(person: Person) -> None:
    client = {"client_id": "robot", "grant": "client_credentials"}
    with pytest.raises(GatewayError, match="needs its secret"):
        await add(person, "http://127.0.0.1:9/mcp", client=client)
