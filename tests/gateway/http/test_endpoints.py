"""Health, metrics and the refusal to register, as a monitor sees them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.gateway.messages import call
from tests.gateway.support import Running, gateway_of, stdio


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        yield running


async def test_metrics_count_calls_by_server_and_outcome(running: Running) -> None:
    await running.post(call("tools/call", name="echo", arguments={}))
    await running.post(call("tools/call", name="fail", arguments={}))
    async with running.http.get(running.url.replace("/mcp", "/metrics")) as reply:
        lines = (await reply.text()).splitlines()
    labels = 'server="plain",method="tools/call"'
    assert f'local_mcp_gateway_calls_total{{{labels},status="ok"}} 1' in lines
    assert f'local_mcp_gateway_calls_total{{{labels},status="error"}} 1' in lines
    assert 'local_mcp_gateway_upstream_ready{server="plain"} 1' in lines


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics"])
async def test_an_endpoint_of_the_gateway_is_only_read(running: Running, path: str) -> None:
    async with running.http.post(running.url.replace("/mcp", path), json={}) as reply:
        assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")


async def test_a_client_that_would_register_is_told_what_to_do_instead(running: Running) -> None:
    async with running.http.post(running.url.replace("/mcp", "/register"), json={}) as reply:
        refused = await reply.json()
        assert (reply.status, refused["error"]) == (400, "invalid_client_metadata")
        assert "token create" in refused["error_description"]
