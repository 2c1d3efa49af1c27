"""The official client sees the servers of a profile as one, in either era."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from mcp import Client

from local_mcp_gateway.store.model import ServerDefinition, ServerKind
from tests.gateway.support import gateway_of, http

TIME = ServerDefinition(
    "time",
    ServerKind.STDIO,
    command=sys.executable,
    args=("-m", "mcp_server_time", "--local-timezone", "UTC"),
)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_lists_and_calls_the_tools_of_both_servers(
    tmp_path: Path, notes_url: str, mode: str
) -> None:
    async with gateway_of(tmp_path, TIME, http("notes", notes_url)) as running:
        async with Client(running.url, mode=mode) as client:
            tools = [tool.name for tool in (await client.list_tools()).tools]
            assert tools == [
                "get_current_time",
                "convert_time",
                "add_note",
                "list_notes",
                "find_notes",
            ]
            now = await client.call_tool("get_current_time", {"timezone": "UTC"})
            assert not now.is_error
            kept = await client.call_tool("add_note", {"title": "a", "text": "b"})
            assert "Kept" in str(kept.content)
            assert [str(r.uri) for r in (await client.list_resources()).resources] == ["note://all"]
            assert "demo" in str(await client.read_resource("note://all"))
            assert "demo" in str(await client.read_resource("note://by-title/welcome"))
            assert [p.name for p in (await client.list_prompts()).prompts] == ["summarize"]
            assert "3 days" in str(await client.get_prompt("summarize", {"days": "3"}))
