"""Every pairing of protocol versions: a server's question during a call reaches the client."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, types
from pydantic import FileUrl

from tests.gateway.messages import META, MODERN, call
from tests.gateway.support import SERVERS, gateway_of, http, process, stdio


async def roots(context: Any) -> types.ListRootsResult:
    return types.ListRootsResult(roots=[types.Root(uri=FileUrl("file:///home/me"))])


async def name(context: Any, params: Any) -> types.ElicitResult:
    return types.ElicitResult(action="accept", content={"name": "Ada"})


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_handshake_server_asks_a_client_of_either_era(tmp_path: Path, mode: Any) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        async with Client(running.url, mode=mode, list_roots_callback=roots) as client:
            answer = await client.call_tool("ask", {"method": "roots/list"})
            assert "file:///home/me" in str(answer.content)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_stateless_server_asks_a_client_of_either_era(tmp_path: Path, mode: Any) -> None:
    async with process(SERVERS / "modern_only.py") as (_, url):
        async with gateway_of(tmp_path, http("modern", url)) as running:
            async with Client(running.url, mode=mode, elicitation_callback=name) as client:
                answer = await client.call_tool("greet", {})
                assert "Hello Ada" in str(answer.content)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_progress_passes_between_the_eras(tmp_path: Path, mode: Any) -> None:
    async with process(SERVERS / "modern_only.py") as (_, url):
        async with gateway_of(tmp_path, http("modern", url), stdio("plain", "plain.py")) as running:
            async with Client(running.url, mode=mode) as client:
                for tool, expected in (("slow", [1]), ("progress", [1, 2])):
                    steps: list[float] = []

                    async def take(
                        progress: float,
                        total: float | None,
                        message: str | None,
                        steps: list[float] = steps,
                    ) -> None:
                        steps.append(progress)

                    await client.call_tool(tool, {}, progress_callback=take)
                    assert steps == expected


async def test_a_parked_call_goes_on_where_it_waited(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        meta = {**META, "io.modelcontextprotocol/clientCapabilities": {"roots": {}}}
        headers = {"mcp_protocol_version": MODERN, "mcp_method": "tools/call", "mcp_name": "ask"}
        params = {"name": "ask", "arguments": {"method": "roots/list"}, "_meta": meta}
        first = await (await running.post(call("tools/call", **params), **headers)).json()
        required = first["result"]
        assert required["resultType"] == "input_required"
        (key,) = required["inputRequests"]
        assert required["inputRequests"][key]["method"] == "roots/list"
        answers = {key: {"roots": [{"uri": "file:///x"}]}}
        again = {**params, "requestState": required["requestState"], "inputResponses": answers}
        second = await (await running.post(call("tools/call", 2, **again), **headers)).json()
        assert json.loads(second["result"]["content"][0]["text"]) == answers[key]
        third = await running.post(call("tools/call", 3, **again), **headers)
        assert third.status == 400
        assert "expired" in (await third.json())["error"]["message"]
