"""The registry of servers and profiles: their states, and what each profile shows."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.gateway.messages import call
from tests.gateway.support import Running, gateway_of, stdio


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        yield running


async def test_health_says_how_each_server_is(running: Running) -> None:
    base = running.url.removesuffix("/mcp")
    async with running.http.get(base + "/health/live") as reply:
        assert reply.status == 200
    await running.post(call("tools/list"))
    async with running.http.get(base + "/health/ready") as reply:
        body = await reply.json()
    assert body["servers"]["plain"]["state"] == "ready"
    assert body["servers"]["plain"]["tools"] == 13


async def test_health_shows_neither_lines_nor_secrets_of_servers(running: Running) -> None:
    leak = {"line": "\x1b]0;OWNED\x07 password=hunter2\n"}
    await running.post(call("tools/call", name="die", arguments=leak))
    lost = await running.heard("upstream.lost")
    assert "\x1b" not in lost["reason"]
    async with running.http.get(running.url.replace("/mcp", "/health/ready")) as reply:
        text = await reply.text()
    assert "hunter2" not in text
    assert "wrote" not in json.loads(text)["servers"]["plain"]


async def test_a_view_is_built_once_and_anew_after_a_change(running: Running) -> None:
    registry = running.gateway.registry
    profile = next(iter(registry.profiles))
    view = await registry.settled_view(profile)
    assert registry.view(profile) is view
    registry.forget_views(registry.profiles_of("plain"))
    assert registry.view(profile) is not view
    assert registry.view(profile).routes == view.routes


async def test_a_profile_that_was_removed_meanwhile_is_empty(running: Running) -> None:
    registry = running.gateway.registry
    await running.post(call("tools/list"))
    registry.define(())
    assert registry.members("default") == []
    assert registry.profiles_of("plain") == frozenset()
    assert registry.view("default").servers == ()
