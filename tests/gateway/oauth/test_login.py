"""Signing in: as which client, what is refused, and that a login that fails leaves nothing behind."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from local_mcp_gateway.errors import GatewayError
from local_mcp_gateway.gateway.oauth import web
from tests.gateway.oauth.signing import Signed, opened
from tests.issuer import Issuer

RESOURCE = "/.well-known/oauth-protected-resource"
ISSUER = "/.well-known/oauth-authorization-server/as"
PAGE = {"text": "<html>Welcome</html>", "content_type": "text/html"}


def at(place: str) -> dict[str, Any]:
    return {"status": 307, "headers": {"Location": place}}


@pytest.fixture
async def signed(tmp_path: Path, issuer: Issuer) -> AsyncIterator[Signed]:
    async with opened(tmp_path, issuer) as running:
        yield running


async def failure(signed: Signed, **how: Any) -> str:
    """Return what is said of a login that fails; nothing may be kept of it."""
    with pytest.raises(GatewayError) as caught:
        await signed.person.log_in("far", **how)
    rows = await signed.running.database.fetch_all("SELECT * FROM oauth_client_registrations")
    assert await signed.tokens() == rows == []
    audited = "SELECT outcome, detail FROM audit_log ORDER BY id DESC LIMIT 1"
    ((outcome, detail),) = map(tuple, await signed.running.database.fetch_all(audited))
    assert outcome == "error"
    assert "The sign-in to 'far' failed" in detail
    assert "server login far" in caught.value.hint
    return caught.value.message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"iss": "wrong"}, "/other, and not of"),
        ({"iss": "missing"}, "the answer is of nobody"),
        ({"token": "big"}, "a token of more than 32768 characters"),
        ({"token": "html"}, "/as/token answered with a web page"),
        ({"token": "500"}, "HTTP 500"),
        ({"token": "invalid_grant"}, "refused the request for a token: invalid_grant (No.)"),
        ({"register": "500"}, "/as/register answered the registration with HTTP 500"),
        ({"register": "html"}, "/as/register answered with a web page"),
        ({"client_id": ""}, "/as/register gave a client id that cannot be sent"),
        ({"client_id": "a\nb"}, "/as/register gave a client id that cannot be sent"),
        ({"register": "none"}, "`server edit far --client-id`"),
        ({"issuer": "https://evil.example"}, "another issuer: https://evil.example"),
        ({"resource": "https://evil.example/mcp"}, "about https://evil.example/mcp"),
        (
            {"error": {"error": "bad_verification_code", "error_description": "Too old."}},
            "refused the request for a token: bad_verification_code (Too old.)",
        ),
        ({"answers": {f"{RESOURCE}/mcp": at("file:///etc/passwd")}}, "which is not a web address"),
        ({"answers": {f"{RESOURCE}/mcp": at(f"{RESOURCE}/mcp")}}, "redirects in a circle"),
        ({"answers": {"/as/token": at("http://127.0.0.1:1/")}}, "/as/token answered"),
        ({"answers": {ISSUER: PAGE}}, "/as, which issues its tokens, has no metadata"),
        ({"metadata": {"code_challenge_methods_supported": ["plain"]}}, "not support PKCE"),
        ({"metadata": {"authorization_endpoint": None}}, "has no page to sign in at"),
        (
            {"resource_metadata": "file:///etc/passwd"},
            "'file:///etc/passwd', which is not a web address",
        ),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
async def test_what_is_wrong_ends_the_login_with_one_sentence(
    signed: Signed, issuer: Issuer, change: dict[str, Any], said: str
) -> None:
    issuer.set(**change)
    assert said in await failure(signed)


async def test_an_answer_belongs_to_one_login_and_is_taken_once(
    signed: Signed, issuer: Issuer
) -> None:
    first, second = await signed.person.begin("far"), await signed.person.begin("far")
    answer = await signed.person.browse(first)
    with pytest.raises(GatewayError, match="belongs to another login"):
        await signed.person.ask(
            "server.signed_in", name="far", login=second["login"], answer=answer
        )
    given = {"name": "far", "login": first["login"], "answer": answer}
    await signed.person.ask("server.signed_in", **given)
    with pytest.raises(GatewayError, match="invalid_grant"):
        await signed.person.ask("server.signed_in", **given)
    assert await signed.call()


async def test_a_refusal_in_the_browser_is_told(signed: Signed, issuer: Issuer) -> None:
    begun = await signed.person.begin("far")
    refused = {"error": "access_denied", "state": begun["login"]["state"]}
    refused["iss"] = f"{issuer.origin}/as"
    with pytest.raises(GatewayError, match="it was refused: access_denied"):
        await signed.person.ask(
            "server.signed_in", name="far", login=begun["login"], answer=refused
        )


async def test_an_issuer_that_takes_no_resource_is_told_none_from_the_login_on(
    signed: Signed, issuer: Issuer
) -> None:
    issuer.set(takes_resource=False)
    with pytest.raises(GatewayError, match="invalid_target") as caught:
        await signed.person.log_in("far")
    assert "`server login far --no-resource`" in caught.value.hint
    await signed.person.log_in("far", resource=False)
    await signed.age(-1)
    assert not isinstance(await signed.call(), dict)
    assert issuer.seen("refresh_token") == 1
    await signed.person.log_in("far")  # remembered
    issuer.set(takes_resource=True)
    await signed.person.log_in("far", resource=True)
    assert issuer.last["authorize"]["resource"] == issuer.url


async def test_a_client_is_used_again_as_long_as_its_redirect_fits(
    signed: Signed, issuer: Issuer
) -> None:
    await signed.person.log_in("far")
    await signed.person.log_in("far")
    assert issuer.seen("register") == 1
    await signed.person.log_in("far", redirect_uri="http://localhost:1234/callback")
    assert issuer.seen("register") == 2
    assert issuer.last["register"]["redirect_uris"] == ["http://localhost:1234/callback"]


async def test_a_document_comes_before_a_registration_and_an_own_client_before_both(
    signed: Signed, issuer: Issuer
) -> None:
    issuer.set(documents=True)
    document = "https://gateway.example/client.json"
    await signed.person.log_in("far", document=document)
    assert await signed.call() == document
    await signed.person.ask("server.edit", name="far", client={"client_id": "mine"})
    await signed.person.log_in("far", document=document)
    assert await signed.call() == "mine"
    assert issuer.seen("register") == 0


async def test_an_own_client_and_its_secret_go_to_no_other_issuer(
    signed: Signed, issuer: Issuer
) -> None:
    client = {"client_id": "mine", "client_secret": "s3cr3t-of-mine"}
    await signed.person.ask("server.edit", name="far", client=client)
    await signed.person.log_in("far")
    issuer.set(base="/moved")
    with pytest.raises(GatewayError, match=r"its tokens now come from .*/moved"):
        await signed.person.log_in("far")


async def test_a_registered_client_is_not_taken_to_another_issuer(
    signed: Signed, issuer: Issuer
) -> None:
    await signed.person.log_in("far")
    issuer.set(base="/moved")
    await signed.person.log_in("far")
    assert issuer.seen("register") == 2
    assert await signed.call() == issuer.last["authorize"]["client_id"]


async def test_a_logout_revokes_the_tokens_and_keeps_an_own_client(
    signed: Signed, issuer: Issuer
) -> None:
    await signed.person.ask("server.edit", name="far", client={"client_id": "mine"})
    await signed.person.log_in("far")
    assert await signed.call() == "mine"
    assert (await signed.person.ask("server.logout", name="far"))["revoked"] is True
    assert "`server login far`" in await signed.refused()
    assert await signed.tokens() == []
    await signed.person.log_in("far")
    assert await signed.call() == "mine"


async def test_another_url_is_not_sent_the_old_tokens(signed: Signed, issuer: Issuer) -> None:
    await signed.person.log_in("far")
    await signed.person.ask("server.edit", name="far", url=f"{issuer.origin}/other")
    assert await signed.tokens() == []


def document(issuer: Issuer) -> dict[str, Any]:
    """Return what the server says about itself, to be put at another place."""
    return {
        "text": json.dumps(
            {"resource": f"{issuer.origin}/", "authorization_servers": [f"{issuer.origin}/as"]}
        )
    }


@pytest.mark.parametrize(
    "odd",
    [
        {"resource_metadata": "{origin}/nothing"},
        {"answers": {f"{RESOURCE}/mcp": PAGE, RESOURCE: "document"}},
        {"answers": {f"{RESOURCE}/mcp": at("/moved"), "/moved": "document"}},
        {"answers": {ISSUER: at(f"{ISSUER}?new"), "/.well-known/openid-configuration/as": PAGE}},
        {"issuers": ["/gone", "/as"]},
        {"metadata": {"revocation_endpoint": None, "scopes_supported": None}},
        {"expires_in": 0},
        {"expires_in": -1},
        {"expires_in": "3600"},
    ],
    ids="-".join,
)
async def test_odd_answers_that_can_be_understood_lead_to_a_sign_in(
    signed: Signed, issuer: Issuer, odd: dict[str, Any]
) -> None:
    answers = {
        path: document(issuer) if answer == "document" else answer
        for path, answer in odd.get("answers", {}).items()
    }
    place = odd.get("resource_metadata", "").replace("{origin}", issuer.origin)
    issuer.set(**odd | {"answers": answers, "resource_metadata": place})
    await signed.person.log_in("far")
    for _ in range(3):
        assert not isinstance(await signed.call(), dict)
    assert issuer.seen("refresh_token") == 0


@pytest.mark.parametrize("limit", ["REPLY_S", "ALL_S"])
async def test_an_issuer_that_does_not_answer_ends_the_login(
    signed: Signed, issuer: Issuer, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    issuer.set(answers={ISSUER: {"status": 0}})
    monkeypatch.setattr(web, limit, 0.5)
    assert f"{issuer.origin} did not answer in time" in await failure(signed)


async def test_a_site_with_a_page_for_every_address_has_the_endpoints_of_old(
    signed: Signed, issuer: Issuer
) -> None:
    places = (f"{RESOURCE}/mcp", RESOURCE, "/.well-known/oauth-authorization-server")
    issuer.set(answers=dict.fromkeys((*places, "/register"), PAGE))
    assert f"{issuer.origin}/register answered with a web page" in await failure(signed)


async def test_of_several_issuers_that_of_the_last_sign_in_is_asked(
    signed: Signed, issuer: Issuer
) -> None:
    await signed.person.ask("server.edit", name="far", client={"client_id": "mine"})
    await signed.person.log_in("far")
    issuer.set(issuers=["/gone", "/other", "/as"])
    await signed.person.log_in("far")
    assert await signed.call() == "mine"


@pytest.mark.parametrize("code", ["invalid_client", "unauthorized_client"])
async def test_a_registration_that_the_issuer_has_forgotten_is_made_again(
    signed: Signed, issuer: Issuer, code: str
) -> None:
    await signed.person.log_in("far")
    issuer.set(error={"error": code})
    with pytest.raises(GatewayError, match=code):
        await signed.person.log_in("far")
    assert issuer.seen("register") == 1
    issuer.set(error=None)
    await signed.person.log_in("far")
    assert issuer.seen("register") == 2
    assert await signed.call() == issuer.last["authorize"]["client_id"]
