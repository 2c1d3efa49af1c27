"""A gateway that becomes its own server notices, however long the way around is."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import anyio

from local_mcp_gateway.gateway.protocol import hops
from local_mcp_gateway.store import queries
from local_mcp_gateway.store.model import Member, ProfileDefinition, ServerDefinition, ServerKind
from tests.gateway.messages import META, MODERN, call
from tests.gateway.support import Running, gateway_of, http, stdio
from tests.gateway.using import names, use


async def join(running: Running, *servers: ServerDefinition, profile: str = "default") -> None:
    """Add servers to a profile of a gateway that runs."""
    for server in servers:
        await queries.add_server(running.database, server)
    members = tuple(Member(server.name) for server in servers)
    known = {known.name: known for known in await queries.list_profiles(running.database)}
    if profile in known:
        members = (*known[profile].members, *members)
        changed = ProfileDefinition(profile, members=members)
        await queries.update_profile(running.database, profile, changed)
    else:
        await queries.add_profile(running.database, ProfileDefinition(profile, members=members))
    await running.gateway.reload()


async def test_a_gateway_that_is_its_own_server_refuses_itself_and_serves_the_rest(
    tmp_path: Path,
) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        base = running.url.removesuffix("/mcp")
        bridge = ("-m", "local_mcp_gateway", "stdio", "--url", base)
        await join(
            running,
            http("me", running.url),
            http("old", f"{base}/sse", kind=ServerKind.SSE),
            ServerDefinition(
                "bridge",
                ServerKind.STDIO,
                command=sys.executable,
                args=bridge,
                env={"HOME": str(tmp_path)},
            ),
        )
        shown = await names(running)
        for server in ("me", "old", "bridge"):
            lost = await running.heard("upstream.lost", server=server)
            assert "would be its own server" in lost["reason"] or "508" in lost["reason"]
        assert await names(running) == shown
        assert not [name for name in shown if "__" in name]
        assert int(await use(running, "pid")) > 0


async def test_a_call_that_comes_back_over_another_gateway_ends(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with gateway_of(tmp_path / "a") as one, gateway_of(tmp_path / "b") as two:
        await join(one, http("two", two.url), profile="alone")
        await join(two, http("one", f"{one.url}/alone"))
        named = {"mcp_protocol_version": MODERN, "mcp_method": "tools/call", "mcp_name": "x"}
        for more, headers in (({}, {}), ({"_meta": META}, named)):
            message = call("tools/call", name="x", arguments={}, **more)
            with anyio.fail_after(20):
                reply = await one.post(message, path="/mcp/alone", **headers)
            assert "would be its own server" in await reply.text()
        assert len(asyncio.all_tasks()) < 100


async def test_a_child_is_told_which_gateway_has_started_it(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        pid = int(await use(running, "pid"))
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        assert any(entry.startswith(hops.VARIABLE.encode() + b"=") for entry in environment)
        assert hops.VARIABLE not in os.environ
