"""What an upstream's life rests on: its pauses, and a database that may refuse."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.gateway.upstreams.backoff import FIRST_PAUSE_S, backoff_s
from tests.gateway.support import QUICK, gateway_of, stdio
from tests.gateway.using import names, use


@given(st.integers(1, 1000), st.floats(1, 3600))
def test_pauses_double_up_to_the_limit_and_never_come_together(failures: int, most: float) -> None:
    whole = min(FIRST_PAUSE_S * 2 ** min(failures - 1, 16), most)
    pauses = {backoff_s(failures, most) for _ in range(8)}
    assert all(whole / 2 <= pause <= whole for pause in pauses)
    assert len(pauses) > 1


async def test_a_database_that_takes_nothing_costs_no_call(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        with closing(sqlite3.connect(tmp_path / "gateway.db")) as other:
            for table in ("mcp_server_catalog_cache", "debug_logs"):
                other.execute(f"DROP TABLE {table}")
            other.commit()
        assert await use(running, "echo", a=1) == '{"a": 1}'
        assert "mcp_server_catalog_cache" in (await running.heard("catalog.save_failed"))["message"]
        assert "debug_logs" in (await running.heard("calls.save_failed"))["message"]
        assert await use(running, "echo", b=2) == '{"b": 2}'


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
