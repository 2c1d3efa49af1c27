"""What a page says once, and what it remembers for one browser."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from local_mcp_gateway.database import Progress
from local_mcp_gateway.studio.sessions import MOST_UNDO, Notice, Session
from tests.studio.conftest import Inside, Running


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


async def test_the_page_that_waits_for_long_work_is_told_how_far_it_is(tmp_path: Path) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work(verb: str, arguments: dict[str, Any], progress: Progress) -> dict[str, str]:
        progress(verb, 1 << 30, 4 << 30)
        begun.set()
        await ended.wait()
        return {"name": "made"}

    inside = Inside.of(tmp_path / "shop.db", tmp_path, work=work)

    async def told(number: str) -> object:
        return json.loads((await inside.page(f"/studio/working?work={number}")).text)

    nothing = {"words": None, "percent": None}
    asked = asyncio.create_task(inside.ask("/studio/migrations/backups", {"work": "mine"}))
    await begun.wait()
    assert await told("mine") == {"words": "backing up 4.0 GiB", "percent": 25}
    assert await told("another") == nothing
    ended.set()
    assert (await asked).status == 303
    assert await told("mine") == nothing
