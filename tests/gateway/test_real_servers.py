"""The servers that people really run behind the gateway, used by the official SDK and the Inspector."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, types

from tests.fetched import npm
from tests.harness import Place, new_place

pytestmark = pytest.mark.npm
SCOPE = "@modelcontextprotocol"
SERVERS = ("everything", "filesystem", "memory")
VERSION = "2026.8.31"
INSPECTOR = f"{SCOPE}/inspector@2.12.0"
PACKAGES = (INSPECTOR, *(f"{SCOPE}/server-{name}@{VERSION}" for name in SERVERS))


@dataclass(frozen=True)
class Real:
    """A running `serve` with five real servers in one profile."""

    place: Place
    url: str
    programs: Path

    @property
    def files(self) -> Path:
        return self.place.root / "files"

    def inspect(self, *arguments: str) -> Any:
        """Run the Inspector's CLI; return the JSON that it prints."""
        done = subprocess.run(
            [self.programs / "mcp-inspector", "--cli", *arguments],
            env={**os.environ, "HOME": str(self.place.home)},
            cwd=self.place.root, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def real(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    programs = npm(pytestconfig, "npm-mcp", PACKAGES) / "node_modules" / ".bin"
    place = new_place(tmp_path_factory.mktemp("real"), shipped=True)
    files = place.root / "files"
    files.mkdir()
    subprocess.run(["git", "init", "--quiet", files], check=True)
    python = (sys.executable, "-m")
    servers: dict[str, tuple[str, ...]] = {
        "everything": ("--", str(programs / "mcp-server-everything"), "stdio"),
        "filesystem": ("--", str(programs / "mcp-server-filesystem"), str(files)),
        "memory": (
            "--env", f"MEMORY_FILE_PATH={place.root / 'memory.jsonl'}",
            "--", str(programs / "mcp-server-memory"),
        ),
        "time": ("--", *python, "mcp_server_time", "--local-timezone", "UTC"),
        "git": ("--", *python, "mcp_server_git"),
    }  # fmt: skip
    for name, arguments in servers.items():
        added = place.run("server", "add", name, *arguments)
        assert added.code == 0, added.stderr
    patience = {"LMG_UPSTREAM__LIST_TIMEOUT_S": "90", "LMG_UPSTREAM__CONNECT_TIMEOUT_S": "90"}
    with place.serve(env=patience) as gateway:
        gateway.wait_ready()
        yield Real(place, f"{gateway.url}/mcp", programs)
        assert gateway.stop() == 0


@pytest.fixture(params=["legacy", "auto"])
def mode(request: pytest.FixtureRequest) -> Any:
    """The era in which the SDK's client speaks."""
    return request.param


def text_of(result: types.CallToolResult) -> str:
    assert not result.is_error, result
    return "\n".join(part.text for part in result.content if isinstance(part, types.TextContent))


async def test_the_sdk_uses_tools_of_all_five_servers(real: Real, mode: Any) -> None:
    note = real.files / f"{mode}.txt"
    calls: list[tuple[str, dict[str, Any], str]] = [
        ("echo", {"message": "hello"}, "hello"),
        ("write_file", {"path": str(note), "content": "written"}, "wrote"),
        ("read_text_file", {"path": str(note)}, "written"),
        (
            "create_entities",
            {"entities": [{"name": mode, "entityType": "x", "observations": []}]},
            mode,
        ),
        ("read_graph", {}, mode),
        ("get_current_time", {"timezone": "UTC"}, "UTC"),
        ("git_status", {"repo_path": str(real.files)}, note.name),
    ]
    async with Client(real.url, mode=mode) as client:
        listed = {tool.name for tool in (await client.list_tools()).tools}
        assert {name for name, _, _ in calls} <= listed
        for name, arguments, expected in calls:
            said = text_of(await client.call_tool(name, arguments))
            assert expected.lower() in said.lower(), name
    assert note.read_text() == "written"


async def test_the_sdk_uses_all_that_the_everything_server_has(real: Real, mode: Any) -> None:
    steps: list[float] = []

    async def take(progress: float, total: float | None, message: str | None) -> None:
        steps.append(progress)

    async with Client(real.url, mode=mode) as client:
        prompts = {prompt.name for prompt in (await client.list_prompts()).prompts}
        assert "args-prompt" in prompts
        prompt = await client.get_prompt("args-prompt", {"city": "Oslo"})
        assert "Oslo" in str(prompt.messages[0].content)
        templates = (await client.list_resource_templates()).resource_templates
        assert templates
        read = await client.read_resource("demo://resource/dynamic/text/7")
        assert str(read.contents[0].uri) == "demo://resource/dynamic/text/7"
        with anyio.fail_after(60):
            done = await client.call_tool(
                "trigger-long-running-operation", {"duration": 0.2, "steps": 2},
                progress_callback=take,
            )  # fmt: skip
        assert "completed" in text_of(done)
        assert steps[-1] == 2
        structured = await client.call_tool("get-structured-content", {"location": "Chicago"})
        assert structured.structured_content is not None


def test_the_inspector_lists_and_uses_what_is_there(real: Real) -> None:
    assert {"echo", "git_status", "read_graph"} <= {
        tool["name"] for tool in real.inspect(real.url, "--method", "tools/list")["tools"]
    }
    called = real.inspect(
        real.url, "--method", "tools/call", "--tool-name", "get-sum", "--tool-arg", "a=2", "b=3"
    )
    assert "5" in called["content"][0]["text"]
    got = real.inspect(
        real.url, "--method", "prompts/get", "--prompt-name", "args-prompt",
        "--prompt-args", "city=Oslo",
    )  # fmt: skip
    assert "Oslo" in json.dumps(got)
    read = real.inspect(
        real.url, "--method", "resources/read", "--uri", "demo://resource/dynamic/text/3"
    )
    assert read["contents"][0]["uri"] == "demo://resource/dynamic/text/3"


def test_the_inspector_comes_in_over_stdio_and_sse_too(real: Real) -> None:
    base = real.url.removesuffix("/mcp")
    bridge = (*real.place.command, *real.place.options, "stdio", "--url", base)
    for door in (bridge, (f"{base}/sse",)):
        called = real.inspect(
            *door, "--method", "tools/call", "--tool-name", "echo", "--tool-arg", "message=through"
        )
        assert "through" in called["content"][0]["text"], door
