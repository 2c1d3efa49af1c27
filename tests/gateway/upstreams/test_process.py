"""Children: how they ended is known."""

from __future__ import annotations

import asyncio

import pytest

from local_mcp_gateway.gateway.upstreams.process import Output, spawn
from local_mcp_gateway.store.model import ServerDefinition, ServerKind

SILENT = Output(lambda _: iter(()), lambda: None)


async def test_no_child_is_reaped_behind_the_back_of_asyncio(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cat = ServerDefinition("cat", ServerKind.STDIO, command="cat")
    for _ in range(12):  # a race that was lost one time in five
        children = [await spawn(cat, SILENT, SILENT, lambda: None) for _ in range(4)]
        await asyncio.gather(*(child.end() for child in children))
        assert [child.returncode for child in children] == [0] * 4
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []
