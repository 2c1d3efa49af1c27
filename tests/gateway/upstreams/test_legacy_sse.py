"""A server of 2024-11-05, behind the gateway."""

from __future__ import annotations

from pathlib import Path

from local_mcp_gateway.store.model import ServerKind
from tests.gateway.support import SERVERS, gateway_of, http, process
from tests.gateway.using import use


async def test_a_legacy_server_is_used_by_a_new_client(tmp_path: Path) -> None:
    async with process(SERVERS / "sdk_sse.py") as (child, url):
        async with gateway_of(tmp_path, http("old", url, kind=ServerKind.SSE)) as running:
            assert await use(running, "add", a=2, b=3) == "5"
            child.kill()
            await running.heard("upstream.lost", server="old")
            assert (await use(running, "add", a=2, b=3))["code"] == -32001
