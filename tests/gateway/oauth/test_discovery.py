"""Challenges, addresses of documents, and what covers a server: the pure parts of discovery."""

from __future__ import annotations

import pytest
from yarl import URL

from local_mcp_gateway.gateway.oauth import discovery
from local_mcp_gateway.gateway.oauth.discovery import Found, IssuerMetadata


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ('Bearer resource_metadata="https://a/b", scope="x y"', {"scope": "x y"}),
        ('Basic realm="a", bearer error=insufficient_scope', {"error": "insufficient_scope"}),
        ('BEARER scope="a \\"b\\" c"', {"scope": 'a \\"b\\" c'}),
        ('Basic realm="bear"', {}),
        ('Basic realm="the bearer", scope="wrong"', {}),
        ('DPoP algs="ES256", Bearer scope=right', {"scope": "right"}),
        ("Bearer", {}),
    ],
)
def test_the_parameters_of_a_bearer_challenge_are_read(header: str, found: dict[str, str]) -> None:
    read = discovery.parameters_of(('Digest qop="auth"', header))
    assert found.items() <= read.items()
    assert bool(found) == bool(read)


def test_several_bearer_challenges_are_one_and_the_first_counts() -> None:
    given = ('Bearer realm="a", error="invalid_token"', 'Bearer realm="b", scope="x"')
    assert discovery.parameters_of(given) == {
        "realm": "a",
        "error": "invalid_token",
        "scope": "x",
    }


@pytest.mark.parametrize(
    ("resource", "covers"),
    [
        ("https://a.example/mcp", True),
        ("https://a.example/", True),
        ("https://a.example", True),
        ("https://a.example/mcp?of=me", True),
        ("https://a.example/mcp?of=you", False),
        ("https://a.example/%6dcp", True),
        ("https://a.example/mc", False),
        ("https://a.example/mcp/more", False),
        ("http://a.example/mcp", False),
        ("https://b.example/mcp", False),
        ("nothing", False),
        ("https://[", False),
    ],
)
def test_a_resource_covers_what_is_below_it_at_its_origin(resource: str, *, covers: bool) -> None:
    assert discovery._covers(resource, URL("https://a.example/mcp?of=me")) is covers


def test_an_issuer_with_a_path_has_its_document_at_three_places() -> None:
    assert list(discovery._places_of(URL("https://a.example/t/1/"))) == [
        "https://a.example/.well-known/oauth-authorization-server/t/1",
        "https://a.example/.well-known/openid-configuration/t/1",
        "https://a.example/t/1/.well-known/openid-configuration",
    ]
    assert next(discovery._places_of(URL("https://a.example/x%2Fy"))).endswith("server/x%2Fy")
    assert list(discovery._places_of(URL("https://a.example"))) == [
        "https://a.example/.well-known/oauth-authorization-server",
        "https://a.example/.well-known/openid-configuration",
    ]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://a", "https://a/", True),
        ("https://a/b", "https://a/b/", False),
        ("https://a", "https://A", False),
        ("https://a:443", "https://a", False),
    ],
)
def test_issuers_are_compared_as_texts(one: str, other: str, *, same: bool) -> None:
    assert discovery._same_issuer(one, other) is same


def test_scopes_are_joined_each_once() -> None:
    assert discovery.union_of("b a", "a c") == "b a c"
    assert discovery.union_of(None, None) == ""


@pytest.mark.parametrize(
    ("known", "method"),
    [
        (None, "client_secret_basic"),
        (["client_secret_post"], "client_secret_post"),
        (["client_secret_post", "client_secret_basic"], "client_secret_basic"),
    ],
)
def test_a_secret_is_given_as_the_issuer_wants_it(known: list[str] | None, method: str) -> None:
    issuer = IssuerMetadata("https://a", "https://a/t", token_endpoint_auth_methods_supported=known)
    assert Found(issuer).auth_method(secret=True) == method
    assert Found(issuer).auth_method(secret=False) == "none"
