"""`local-mcp-gateway stdio`: the official client over stdio, through the bridge, to the gateway."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

from tests.gateway.support import gateway_of, stdio
from tests.gateway.test_faces import HELLO, call


def bridge(url: str, home: Path) -> list[str]:
    base = url.removesuffix("/mcp")
    return [sys.executable, "-m", "local_mcp_gateway", "stdio", "--url", base]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_on_stdio_uses_the_gateway(tmp_path: Path, mode: Any) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        command, *args = bridge(running.url, tmp_path)
        parameters = StdioServerParameters(command=command, args=args, env={"HOME": str(tmp_path)})
        steps: list[float] = []

        async def progress(progress: float, total: float | None, message: str | None) -> None:
            steps.append(progress)

        async with Client(parameters, mode=mode) as client:
            assert len((await client.list_tools()).tools) == 13
            answer = await client.call_tool("progress", {"a": 1}, progress_callback=progress)
            assert '"a": 1' in str(answer.content)
            assert steps == [1, 2]


async def test_what_was_asked_before_the_end_of_stdin_is_answered(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        await running.post(call("tools/list"))
        child = await asyncio.create_subprocess_exec(
            *bridge(running.url, tmp_path),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "HOME": str(tmp_path)},
        )
        messages = [HELLO, call("tools/call", 2, name="echo", arguments={"x": 1}), call("ping", 3)]
        asked = "".join(json.dumps(message) + "\n" for message in messages) + "no json\n"
        out, _ = await asyncio.wait_for(child.communicate(asked.encode()), 30)
        answers = {answer["id"]: answer for answer in map(json.loads, out.splitlines())}
        assert answers[0]["result"]["serverInfo"]["name"] == "local-mcp-gateway"
        assert answers[2]["result"]["content"][0]["text"] == '{"x": 1}'
        assert answers[3]["result"] == {}
        assert answers[None]["error"]["code"] == -32700
        assert child.returncode == 0


async def test_a_batch_on_stdio_is_answered_with_one(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        child = await asyncio.create_subprocess_exec(
            *bridge(running.url, tmp_path),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "HOME": str(tmp_path)},
        )
        hello = {**HELLO, "params": {**HELLO["params"], "protocolVersion": "2025-03-26"}}
        batch = [call("ping", 1), call("tools/call", 2, name="echo", arguments={"x": 1})]
        asked = f"{json.dumps(hello)}\n{json.dumps(batch)}\n"
        out, _ = await asyncio.wait_for(child.communicate(asked.encode()), 30)
        _, answers = (json.loads(line) for line in out.splitlines())
        assert [answer["id"] for answer in answers] == [1, 2]


async def test_a_client_on_stdio_does_not_notice_that_the_gateway_restarted(
    tmp_path: Path,
) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        command, *args = bridge(running.url, tmp_path)
        parameters = StdioServerParameters(command=command, args=args, env={"HOME": str(tmp_path)})
        async with Client(parameters, mode="legacy") as client:
            await client.list_tools()
            for session in running.gateway._hub.sessions:  # what a restart leaves of them
                running.gateway._hub.sessions.close(session)
            assert '"b": 2' in str((await client.call_tool("echo", {"b": 2})).content)
