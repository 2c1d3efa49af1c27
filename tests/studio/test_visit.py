"""What a page says once, and what it remembers for one browser."""

from __future__ import annotations

from local_mcp_gateway.studio.sessions import MOST_UNDO, Notice, Session
from tests.studio.conftest import Running


def test_what_was_done_is_said_on_the_next_page_and_then_no_more(running: Running) -> None:
    browser, other = running.browser(), running.browser()
    assert browser.post("/studio/profiles/default/edit", description="said once").status == 303
    assert "The profile is changed" not in other.page("/studio/profiles/default").words
    assert "The profile is changed" in browser.page("/studio/profiles/default").words
    assert "The profile is changed" not in browser.page("/studio/profiles/default").words


def test_the_newest_ways_back_are_kept() -> None:
    session = Session("token", 0.0)
    numbers = [session.remember(n) for n in range(MOST_UNDO + 5)]
    assert len(session.undo) == MOST_UNDO
    assert session.undo[numbers[-1]] == MOST_UNDO + 4
    session.notice = Notice("once")
    assert session.take_notice() is not None
    assert session.take_notice() is None
