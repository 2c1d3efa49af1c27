"""A server may take its time to start as long as it works on it, and no longer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.gateway.support import QUICK, gateway_of, stdio
from tests.gateway.using import names, use


@pytest.mark.parametrize("kind", ["cpu", "io", "child", "stderr"])
async def test_a_server_that_works_on_its_start_is_not_ended_and_its_list_comes_when_it_comes(
    tmp_path: Path, kind: str
) -> None:
    """As `npx` and `uvx` do, which download for minutes."""
    options = replace(QUICK, connect_timeout_s=2, list_timeout_s=0.1)
    server = stdio("slow", "slow_start.py", kind, "5")
    async with gateway_of(tmp_path, server, options=options) as running:
        assert await names(running) == []
        await running.heard("upstream.starting", server="slow")
        state = running.gateway.status()["servers"]["slow"]
        assert state["state"] == "connecting"
        assert state["reason"].startswith("it has been starting for ")
        assert await use(running, "echo", a=1) == '{"a": 1}'
        await running.kept("slow", "echo")  # a list waits a tenth of a second for it
        assert len(await names(running)) == 13
        assert running.find("upstream.lost") is None


async def test_a_server_that_does_nothing_at_its_start_is_ended_and_the_setting_named(
    tmp_path: Path,
) -> None:
    options = replace(QUICK, connect_timeout_s=1.5)
    server = stdio("slow", "slow_start.py", "nothing", "60")
    async with gateway_of(tmp_path, server, options=options) as running:
        error = await use(running, "echo")
        assert "it did not answer within " in error["message"]
        assert "s (upstream.connect_timeout_s)" in error["message"]
