"""A few seconds of the soak: servers die at random, and no answer is lost, crossed or leaked."""

from __future__ import annotations

from pathlib import Path

from tests.gateway.soak import soak


async def test_answers_are_never_crossed_while_servers_are_killed(tmp_path: Path) -> None:
    tally, before, after = await soak(tmp_path, seconds=6, pause_s=0.7)
    assert tally.crossed == []
    assert set(tally.outcomes) <= {"ok", "unavailable"}
    assert tally.answered > 100
    assert tally.kills >= 2
    assert after.children == before.children
    assert after.tasks <= before.tasks + 3
    assert after.descriptors <= before.descriptors + 5
