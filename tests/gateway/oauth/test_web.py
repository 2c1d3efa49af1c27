"""What a server refers to is not trusted: no address that is nearer than the server itself (SSRF)."""

from __future__ import annotations

import pytest
from yarl import URL

from local_mcp_gateway.gateway.oauth.web import OAuthProblem, Reply, Web, _reach, _reach_of
from tests.gateway.support import http

PUBLIC = http("far", "https://far.example/mcp")


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "javascript:alert(1)",
        "http://far.example/plain",
        "https://127.0.0.1/",
        "https://[::1]:8443/",
        "https://[::ffff:127.0.0.1]/",
        "https://0.0.0.0/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data",
        "https://[fe80::1]/",
        "https://[",
        "",
    ],
)
async def test_an_address_that_a_public_server_cannot_mean_is_refused(url: str) -> None:
    web = Web(PUBLIC, reach=0)
    async with web._http:
        with pytest.raises(OAuthProblem, match="it refers to"):
            await web.get(url)


async def test_a_name_is_looked_at_as_it_resolves() -> None:
    web = Web(PUBLIC, reach=0)
    async with web._http:
        with pytest.raises(OAuthProblem, match="localhost, an address inside of this machine"):
            await web.get("https://localhost:1/")


async def test_a_server_on_this_machine_may_refer_to_this_machine() -> None:
    local = http("near", "http://127.0.0.1:1/mcp")
    async with Web.open(local) as web:
        assert web.checked("http://127.0.0.1:2/token") == URL("http://127.0.0.1:2/token")


async def test_how_near_an_address_is() -> None:
    addresses = ("8.8.8.8", "192.168.1.1", "fe80::1%eth0", "127.0.0.9", "::ffff:10.1.1.1")
    assert [_reach(address) for address in addresses] == [0, 1, 2, 3, 1]
    for nobody in ("no-such-host.invalid", "a..invalid", "a" * 64):
        assert await _reach_of(nobody) == 0


@pytest.mark.parametrize(
    ("address", "reach"),
    [
        ("64:ff9b::7f00:1", 3),
        ("64:ff9b::a9fe:a9fe", 2),
        ("64:ff9b::808:808", 0),
        ("64:ff9b:1::1", 1),
        ("2002:a00:1::", 1),
        ("2002:808:808::1", 0),
        ("::127.0.0.1", 3),
        ("::ffff:0:7f00:1", 3),
        ("fec0::1", 1),
        ("ff02::1", 2),
        ("ff0e::1", 1),
        ("224.0.0.1", 1),
        ("192.0.0.192", 1),
        ("2606:4700::1", 0),
    ],
)
def test_an_address_inside_of_another_is_as_near_as_that(address: str, reach: int) -> None:
    assert _reach(address) == reach


@pytest.mark.parametrize(
    ("status", "body", "said", "passes"),
    [
        (400, b'{"error":"invalid_grant"}', "refused it: invalid_grant", False),
        (400, b'{"error":"x","error_description":"a\\u001bb"}', r"refused it: x \(a", False),
        (503, b'{"error":"invalid_grant"}', "HTTP 503", True),
        (429, b"", "HTTP 429", True),
        (400, b'{"error":"temporarily_unavailable"}', "HTTP 400", True),
        (400, b'{"error":{"code":7}}', "HTTP 400", False),
        (404, b"<html>", "HTTP 404", False),
    ],
)
def test_an_error_is_final_or_passes(status: int, body: bytes, said: str, *, passes: bool) -> None:
    reply = Reply(URL("https://user:pass@a.example/token?secret=1"), status, body)
    problem = reply.problem("it")
    with pytest.raises(OAuthProblem, match=said):
        raise problem
    assert problem.passes is passes
    assert "secret" not in problem.reason
    assert "pass@" not in problem.reason
    assert "\x1b" not in problem.reason
