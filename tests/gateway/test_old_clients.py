"""Clients of earlier protocol revisions, on the SDKs of their day."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from tests.fetched import pip
from tests.gateway.support import SERVERS, gateway_of, stdio

OLD = {"2024-11-05": ("1.6.0", "sse"), "2025-03-26": ("1.9.4", "http")}


@pytest.mark.parametrize("revision", OLD)
async def test_a_client_of_an_old_revision_does_all_that_it_can(
    pytestconfig: pytest.Config, tmp_path: Path, revision: str
) -> None:
    sdk, how = OLD[revision]
    packages = (f"mcp=={sdk}", "pydantic==2.11.7")  # the SDK reaches into what later ones moved
    library = await asyncio.to_thread(pip, pytestconfig, f"mcp-{sdk}", packages)
    servers = (stdio("plain", "plain.py"), stdio("watched", "watched.py"))
    async with gateway_of(tmp_path, *servers) as running:
        url = running.url if how == "http" else running.url.replace("/mcp", "/sse")
        child = await asyncio.create_subprocess_exec(
            sys.executable, str(SERVERS / "old_client.py"), how, url,
            env={**os.environ, "PYTHONPATH": str(library)}, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        said, _ = await child.communicate()
    assert child.returncode == 0
    assert json.loads(said) == {
        "version": revision,
        "asked": ["roots", "sampling"],
        "read": "1",
        "grown": ["grown"],
        "bytes": 3_000_000,
    }
