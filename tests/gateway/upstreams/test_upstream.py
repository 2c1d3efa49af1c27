"""Calls go on whatever becomes of what is stored about them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.gateway.support import gateway_of, stdio
from tests.gateway.using import use


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
