"""What an upstream's life rests on: its pauses, and a database that may refuse."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.gateway.upstreams.backoff import FIRST_PAUSE_S, backoff_s
from tests.gateway.support import gateway_of, stdio
from tests.gateway.using import use


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
