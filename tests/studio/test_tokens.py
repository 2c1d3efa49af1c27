"""The tokens of clients on the pages."""

from __future__ import annotations

import re

from tests.studio.conftest import Browser, Running


def test_a_token_is_shown_once_changed_and_revoked(running: Running, browser: Browser) -> None:
    reply = browser.post(
        "/studio/tokens",
        name="laptop",
        reach="chosen",
        profile="default",
        expires="90d",
        allowed="git_*",
    )
    assert reply.status == 200
    assert reply.headers["cache-control"] == "no-store"
    found = re.search(r"lmg_[0-9a-f]{16}_[\w-]{43}", reply.text)
    assert found
    page = browser.page("/studio/tokens")
    assert found[0] not in page.text
    assert re.search(r"laptop default some tools \d+ [A-Z][a-z]+ 20\d\d, \d\d:\d\d –", page.words)
    page = browser.sent(
        "/studio/tokens/laptop/edit", name="desk", reach="all", expires="never",
        denied="git_push\ngit/drop", calls_per_minute="60",
    )  # fmt: skip
    assert "desk is valid for good" in page.words
    (token,) = running.place.run("token", "list", "--json").json()
    assert (token["name"], token["profiles"], token["expires_at"]) == ("desk", None, None)
    assert token["policy"] == {
        "allowed": [],
        "denied": ["git_push", "git/drop"],
        "read_only": False,
        "calls_per_minute": 60,
        "calls_at_once": None,
    }
    assert browser.post("/studio/tokens/desk/revoke", typed="laptop").status == 400
    page = browser.sent("/studio/tokens/desk/revoke", typed="desk")
    assert "No tokens yet" in page.words


def test_a_refused_token_says_why_and_keeps_what_was_typed(browser: Browser) -> None:
    reply = browser.post("/studio/tokens", name="ci", reach="all", expires="soon", denied="x y")
    assert reply.status == 400
    assert "'soon' cannot be used" in reply.words
    assert ">x\ny</textarea>" in reply.text
    for wrong in (
        {"reach": "chosen"},
        {"reach": "all", "calls_at_once": "two"},
        {"reach": "all", "calls_at_once": "9" * 5_000},
        {"name": ""},
    ):
        assert browser.post("/studio/tokens", **{"name": "ci", **wrong}).status == 400
    assert browser.get("/studio/tokens/nobody").status == 400
    assert "No tokens yet" in browser.page("/studio/tokens").words
