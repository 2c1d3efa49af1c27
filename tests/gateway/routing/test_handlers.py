"""Log levels: a client gets what is severe enough for it, and servers learn the level."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from local_mcp_gateway.store import queries
from tests.gateway.messages import call
from tests.gateway.processes import stop
from tests.gateway.support import Running, gateway_of, stdio
from tests.gateway.using import names, session, use


@pytest.mark.parametrize("level", ["error", "warning"])
async def test_a_client_hears_only_what_is_severe_enough(tmp_path: Path, level: str) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        headers = await session(running)
        await running.post(call("logging/setLevel", level=level), **headers)
        reply = await running.post(call("tools/call", name="log", arguments={}), **headers)
        assert ("be careful" in await reply.text()) is (level == "warning")


def levels(running: Running) -> list[str]:
    """Return the levels that the server has been told."""
    lines = (fields["line"] for event, fields in running.said if event == "upstream.logged")
    return [line.removeprefix("level ") for line in lines if line.startswith("level ")]


async def test_a_server_is_told_the_level_that_lets_the_most_through(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        one, other = await session(running), await session(running)
        await running.post(call("tools/list"))
        for headers, level in ((one, "warning"), (other, "error")):
            reply = await running.post(call("logging/setLevel", level=level), **headers)
            assert (await reply.json())["result"] == {}
        with anyio.fail_after(30):
            while len(levels(running)) < 2:
                await use(running, "echo")
        assert levels(running) == ["warning", "warning"]
        reply = await running.post(call("tools/call", name="log", arguments={}), **one)
        assert "be careful" in await reply.text()
        reply = await running.post(call("tools/call", name="log", arguments={}), **other)
        assert "be careful" not in await reply.text()


async def test_a_server_that_hangs_or_is_down_keeps_no_client_from_setting_its_level(
    tmp_path: Path,
) -> None:
    hanging, down = stdio("hanging", "plain.py"), stdio("down", "plain.py")
    async with gateway_of(tmp_path, hanging, down, stdio("plain", "plain.py")) as running:
        headers = await session(running)
        await names(running)
        broken = replace(down, command="/nowhere")
        identity = running.gateway.registry.upstreams["down"].identity
        await queries.update_server(running.database, "down", broken)
        await running.gateway.reload()
        running.gateway.registry.upstreams["down"].identity = identity
        pid = int(await use(running, "pid"))
        await stop(pid)
        try:
            reply = await running.post(call("logging/setLevel", level="alert"), **headers)
            assert (await reply.json())["result"] == {}
            await running.wrote("level alert")
        finally:
            os.kill(pid, signal.SIGCONT)
        with anyio.fail_after(30):
            while levels(running) != ["alert", "alert"]:
                await use(running, "echo")


async def test_a_level_may_be_set_while_no_server_that_logs_is_connected(tmp_path: Path) -> None:
    logging, quiet = stdio("plain", "plain.py"), stdio("quiet", "scripted.py", "{}")
    async with gateway_of(tmp_path, logging, quiet) as running:
        headers = await session(running)
        await names(running)
        identity = running.gateway.registry.upstreams["plain"].identity
        await queries.update_server(running.database, "plain", replace(logging, command="/nowhere"))
        await running.gateway.reload()
        running.gateway.registry.upstreams["plain"].identity = identity
        reply = await running.post(call("logging/setLevel", level="alert"), **headers)
        assert (await reply.json())["result"] == {}


async def test_a_child_that_was_started_again_is_told_the_level_again(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        headers = await session(running)
        await running.post(call("tools/list"))
        await running.post(call("logging/setLevel", level="alert"), **headers)
        await running.post(call("tools/call", name="die", arguments={}))
        with anyio.fail_after(30):
            while levels(running) != ["alert", "alert"]:
                await running.post(call("tools/call", name="echo", arguments={}))
