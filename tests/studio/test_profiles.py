"""Profiles on the pages."""

from __future__ import annotations

import re

from tests.studio.conftest import Browser


def shown_order(text: str) -> list[str]:
    return re.findall(r'aria-label="Move (\w+) up"', text)


def test_a_profile_is_made_filled_changed_and_removed(browser: Browser) -> None:
    page = browser.sent("/studio/profiles", name="night", description="For the night")
    assert "night is added" in page.words
    page = browser.sent("/studio/profiles/night/edit", add="plain")
    assert f"{browser.url}/mcp/night" in page.words
    assert "night shows 1 server" in page.words
    page = browser.sent("/studio/profiles/night/edit", disable="plain")
    assert "night shows 0 servers" in page.words
    page = browser.sent("/studio/profiles/night/tool", server="plain", tool="raw", enabled="0")
    assert "nothing: it is hidden" in page.words
    page = browser.sent("/studio/profiles/night/tool", server="plain", tool="raw", reset="1")
    assert "nothing: it is hidden" not in page.words
    page = browser.sent("/studio/profiles/night/edit", add="gone")
    assert shown_order(page.text) == ["plain", "gone"]
    for verb in ("up", "up"):
        page = browser.sent("/studio/profiles/night/edit", **{verb: "gone"})
        assert shown_order(page.text) == ["gone", "plain"]
    page = browser.sent("/studio/profiles/night/edit", down="gone")
    assert shown_order(page.text) == ["plain", "gone"]
    assert browser.post("/studio/profiles/night/remove", typed="").status == 400
    browser.sent("/studio/profiles/night/remove", typed="night")
    assert "night" not in browser.page("/studio/profiles").words


def test_a_refused_change_says_why_and_keeps_what_was_typed(browser: Browser) -> None:
    reply = browser.post("/studio/profiles", name="a/b c", description="kept")
    assert reply.status == 400
    assert 'value="kept"' in reply.text
    reply = browser.post(
        "/studio/profiles/default/tool", server="plain", tool="nothing", rename="x"
    )
    assert "has no tool" in reply.words


def test_the_lines_for_each_client_name_this_profile(browser: Browser) -> None:
    page = browser.page("/studio/profiles/default")
    assert f"claude mcp add --transport http local-gateway {browser.url}/mcp/default" in page.words
