"""A few seconds of the soak: servers die at random, and no answer is lost, crossed or leaked."""

from __future__ import annotations

from pathlib import Path

from tests.gateway.soak import leaks, soak


async def test_no_answer_is_lost_or_crossed_while_servers_die(tmp_path: Path) -> None:
    tally, samples = await soak(tmp_path, seconds=6, rounds=2, pause_s=0.5)
    assert (tally.lost, tally.crossed) == ([], [])
    assert set(tally.outcomes) <= {"ok", "unavailable", "left"}
    assert tally.outcomes["ok"] > 50
    assert sum(tally.disturbed.values()) >= 2
    assert leaks(samples, memory_mib=30) == []
