"""Servers that people run: what official clients get through the gateway is what they get directly.

All of them start without a network. Where a tool would use one, it is called so that the server itself
refuses: its own words must arrive. The clients can all that a server may ask of one: a server that lists
tools by that is first met as one whose clients can.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from mcp import Client, MCPError, StdioServerParameters, stdio_client, types

from local_mcp_gateway.store.model import ServerDefinition, ServerKind
from tests.fetched import npm, pip
from tests.gateway.support import QUICK, gateway_of

pytestmark = [pytest.mark.nightly, pytest.mark.npm]
SCOPE: Final = "@modelcontextprotocol"
SDKS: Final = (f"{SCOPE}/sdk@1.32.2", f"{SCOPE}/client@2.4.0", f"{SCOPE}/core@2.4.0")
CLIENTS: Final = ("mcp", "typescript-1", "typescript-2")
TYPESCRIPT: Final = Path(__file__).with_name("real_client.cjs")
PLACE: Final = "PLACE"
"""Stands for the folder of the test."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server of npm or PyPI, and a call that needs nothing from outside."""

    packages: tuple[str, ...]
    tool: str
    arguments: dict[str, Any] = field(default_factory=dict)
    program: str = ""
    options: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)


THOUGHT: Final = {
    "thought": "a",
    "nextThoughtNeeded": False,
    "thoughtNumber": 1,
    "totalThoughts": 1,
}
NOON: Final = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}
SERVERS: Final = {
    "everything": Server(
        (f"{SCOPE}/server-everything@2026.8.31",), "echo", {"message": "hi"},
        program="mcp-server-everything", options=("stdio",),
    ),
    "filesystem": Server(
        (f"{SCOPE}/server-filesystem@2026.8.31",), "list_directory", {"path": PLACE},
        program="mcp-server-filesystem", options=(PLACE,),
    ),
    "memory": Server(
        (f"{SCOPE}/server-memory@2026.8.31",), "read_graph", program="mcp-server-memory",
        env={"MEMORY_FILE_PATH": f"{PLACE}/memory.jsonl"},
    ),
    "sequential-thinking": Server(
        (f"{SCOPE}/server-sequential-thinking@2026.8.31",), "sequentialthinking", THOUGHT,
        program="mcp-server-sequential-thinking",
    ),
    "playwright": Server(("@playwright/mcp@0.0.83",), "browser_tabs", program="playwright-mcp"),
    "context7": Server(("@upstash/context7-mcp@4.1.1",), "resolve-library-id", program="context7-mcp"),
    "chrome-devtools": Server(
        ("chrome-devtools-mcp@1.11.0",), "navigate_page", {"type": "no"}, program="chrome-devtools-mcp"
    ),
    "notion": Server(
        ("@notionhq/notion-mcp-server@2.5.2",), "API-no-such-tool", program="notion-mcp-server",
        env={"NOTION_TOKEN": "ntn_none"},
    ),
    "firecrawl": Server(
        ("firecrawl-mcp@3.26.0",), "firecrawl_scrape", program="firecrawl-mcp",
        env={"FIRECRAWL_API_KEY": "fc-none"},
    ),
    "tavily": Server(
        ("tavily-mcp@0.2.22",), "tavily_no_such_tool", program="tavily-mcp", env={"TAVILY_API_KEY": "none"}
    ),
    "kubernetes": Server(("mcp-server-kubernetes@4.1.7",), "ping", program="mcp-server-kubernetes"),
    "brave": Server(
        ("@brave/brave-search-mcp-server@2.1.4",), "brave_web_search",
        program="brave-search-mcp-server", options=("--transport", "stdio"),
        env={"BRAVE_API_KEY": "none"},
    ),
    "time": Server(
        ("mcp-server-time==2026.10.19",), "convert_time", NOON, program="mcp-server-time",
        options=("--local-timezone", "UTC"),
    ),
    "git": Server(
        ("mcp-server-git==2026.10.19",), "git_status", {"repo_path": f"{PLACE}/none"},
        program="mcp-server-git",
    ),
    "fetch": Server(("mcp-server-fetch==2026.10.24",), "fetch", program="mcp-server-fetch"),
    "sqlite": Server(
        ("mcp-server-sqlite==2025.4.25", "mcp==1.30.0"), "list_tables", program="mcp-server-sqlite",
        options=("--db-path", f"{PLACE}/a.db"),
    ),
    "duckduckgo": Server(
        ("duckduckgo-mcp-server==0.7.0",), "search", program="duckduckgo-mcp-server"
    ),
    "calculator": Server(
        ("mcp-server-calculator==0.2.1",), "calculate", {"expression": "1+2"},
        program="mcp-server-calculator",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ready:
    """How a server is started here."""

    command: tuple[str, ...]
    env: dict[str, str]
    arguments: dict[str, Any]


def fetched(config: pytest.Config, name: str, place: Path) -> Ready:
    """Return how to start this server, fetched if need be."""
    server = SERVERS[name]
    env = {"PATH": os.environ["PATH"], "HOME": str(place), **server.env}
    if any("==" in package for package in server.packages):
        folder = pip(config, f"server-{name}", server.packages)
        programs = folder / "bin"
        env["PYTHONPATH"] = str(folder)
    else:
        programs = npm(config, f"server-{name}", server.packages) / "node_modules" / ".bin"
    command = (str(programs / server.program), *server.options)
    settled = json.dumps([command, env, server.arguments]).replace(PLACE, str(place))
    found = json.loads(settled)
    return Ready(tuple(found[0]), found[1], found[2])


@asynccontextmanager
async def through(ready: Ready, place: Path) -> AsyncIterator[str]:
    """Serve a gateway before the server, which it starts for itself; yield its URL."""
    program, *rest = ready.command
    server = ServerDefinition(
        "real", ServerKind.STDIO, command=program, args=tuple(rest), env=ready.env
    )
    async with gateway_of(place, server, options=QUICK) as running:
        yield running.url


async def shown_by_python(where: Any, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Use a server with the official Python SDK; return its lists and what the call returned."""

    def plain(items: Any) -> list[Any]:
        return [item.model_dump(mode="json", by_alias=True, exclude_unset=True) for item in items]

    async def roots(context: Any) -> types.ListRootsResult:
        return types.ListRootsResult(roots=[])

    async def never(context: Any, params: Any) -> types.ErrorData:
        return types.ErrorData(code=-1, message="no server asks for this here")

    client = Client(
        where,
        mode="legacy",
        list_roots_callback=roots,
        sampling_callback=never,
        elicitation_callback=never,
    )
    async with client:
        has = client.server_capabilities
        shown: dict[str, Any] = {"tools": [], "prompts": [], "resources": []}
        if has.tools:
            shown["tools"] = plain((await client.list_tools()).tools)
        if has.prompts:
            shown["prompts"] = plain((await client.list_prompts()).prompts)
        if has.resources:
            shown["resources"] = plain((await client.list_resources()).resources)
        try:
            shown["called"] = plain([await client.call_tool(tool, arguments)])
        except MCPError as error:
            shown["called"] = [error.error.code, error.error.message]
    return shown


async def shown_by_typescript(folder: Path, sdk: int, **where: Any) -> dict[str, Any]:
    """Use a server with the official TypeScript SDK 1 or 2; return the same."""
    child = await asyncio.create_subprocess_exec(
        "node", str(TYPESCRIPT), json.dumps({"sdk": sdk, **where}),
        cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, wrong = await child.communicate()
    assert child.returncode == 0, wrong.decode()
    shown: dict[str, Any] = json.loads(said)
    return shown


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("name", SERVERS)
async def test_a_real_server_is_through_the_gateway_what_it_is_directly(
    pytestconfig: pytest.Config, tmp_path: Path, name: str, client: str
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    ready = await asyncio.to_thread(fetched, pytestconfig, name, place)
    folder = await asyncio.to_thread(npm, pytestconfig, "npm-sdks", SDKS)
    call: dict[str, Any] = {"tool": SERVERS[name].tool, "arguments": ready.arguments}
    program, *rest = ready.command
    if client == "mcp":
        child = StdioServerParameters(command=program, args=rest, env=ready.env)
        direct = await shown_by_python(stdio_client(child), **call)
        async with through(ready, tmp_path) as url:
            behind = await shown_by_python(url, **call)
    else:
        sdk = int(client[-1])
        direct = await shown_by_typescript(
            folder, sdk, command=ready.command, env=ready.env, **call
        )
        async with through(ready, tmp_path) as url:
            behind = await shown_by_typescript(folder, sdk, url=url, **call)
    assert direct["tools"], "the server was there"
    assert behind == direct
