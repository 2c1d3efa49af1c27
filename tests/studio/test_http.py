"""A request and its form, a response and its headers."""

from __future__ import annotations

from typing import Any

import pytest

from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.studio.http import SAFE, Request, Response, address


async def nothing() -> dict[str, Any]:
    return {"type": "http.request", "body": b""}


def request(
    path: str, query: bytes = b"", headers: list[tuple[bytes, bytes]] | None = None
) -> Request:
    scope = {
        "method": "GET",
        "path": "",
        "raw_path": path.encode(),
        "query_string": query,
        "headers": headers or [],
    }
    return Request.of(scope, nothing)


def test_an_address_leads_back_to_the_names_it_was_made_of() -> None:
    odd = ("data", "a/b ü?#&%2f", "..", "")
    made = address(*odd, page=2, left=None)
    assert request(made.partition("?")[0]).parts == odd
    assert made.endswith("?page=2")


def test_a_link_changes_one_part_of_the_query_and_keeps_the_rest() -> None:
    asked = request("/studio/calls", b"server=a%26b&text=x&before=9")
    assert asked.link(before=None, text="y") == "/studio/calls?server=a%26b&text=y"
    assert asked.asked("nothing", "else") == "else"


def test_cookies_in_two_headers_are_one_list() -> None:
    asked = request("/", b"", [(b"cookie", b"a=1"), (b"cookie", b"b=2")])
    assert asked.headers["cookie"] == "a=1; b=2"


def test_too_many_fields_are_refused() -> None:
    with pytest.raises(UsageProblem, match="cannot be read"):
        request("/studio/", b"&".join(b"a=1" for _ in range(6000)))


async def test_every_response_carries_the_headers_that_keep_other_sites_out() -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await Response("text").send(send)
    assert {name for name, _ in SAFE} <= {name for name, _ in sent[0]["headers"]}
    assert (b"cache-control", b"no-store") in sent[0]["headers"]
    assert sent[1]["body"] == b"text"
