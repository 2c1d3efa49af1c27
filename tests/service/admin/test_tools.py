"""The tools of a running gateway, as the commands and the pages use them."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_mcp_gateway.errors import UpstreamProblem, UsageProblem
from local_mcp_gateway.service.admin import tools
from local_mcp_gateway.store import queries
from local_mcp_gateway.store.model import Member, ProfileDefinition
from tests.gateway.support import Running, gateway_of, stdio


async def called(running: Running, tool: str, profile: str | None = None) -> object:
    question = {"tool": tool, "profile": profile, "arguments": {"text": "hello"}}
    return await tools.call_tool(running.database, running.gateway, "default", question)


async def test_a_tool_is_listed_with_its_server_and_called_through_its_profile(
    tmp_path: Path,
) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        listed = await tools.list_tools(running.database, running.gateway, {})
        assert ("plain", "echo") in {(tool["server"], tool["name"]) for tool in listed}
        assert "hello" in str(await called(running, "echo"))


async def test_a_tool_that_is_not_there_is_told_with_what_may_be_meant(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        await tools.list_tools(running.database, running.gateway, {})
        with pytest.raises(UpstreamProblem) as refused:
            await called(running, "ecko")
        assert "Did you mean echo?" in refused.value.hint


async def test_a_tool_of_several_profiles_wants_the_one_that_is_meant(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        (first,) = await queries.list_profiles(running.database)
        for name in ("one", "two"):
            profile = ProfileDefinition(name, members=(Member("plain"),))
            await queries.add_profile(running.database, profile)
        await queries.remove_profile(running.database, first.name)
        await running.gateway.reload()
        with pytest.raises(UsageProblem, match="Several profiles have the tool 'echo': one, two"):
            await called(running, "echo")
        assert "hello" in str(await called(running, "echo", "two"))


async def test_a_server_is_tried_without_touching_its_connection(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        found = await tools.check_server(running.database, running.gateway, "plain")
        assert (found["name"], found["notes"]) == ("plain", [])
        assert found["tools"]
