"""A gateway that was killed with SIGKILL leaves nobody behind."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import anyio

from local_mcp_gateway.gateway.upstreams.process import OrphanReaper
from tests.gateway.messages import call
from tests.gateway.processes import alive, gone
from tests.gateway.support import REPOSITORY, SERVERS


def post(url: str, message: dict[str, Any]) -> Any:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(message).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.load(reply)


async def test_the_children_and_grandchildren_of_a_killed_gateway_are_ended(tmp_path: Path) -> None:
    script = f"{sys.executable} {SERVERS / 'plain.py'} --ignore-eof --ignore-term --grandchild"
    command = [sys.executable, "-m", "benchmarks.gateway_process", str(tmp_path)]
    gateway = subprocess.Popen(
        [*command, f"stdio:plain:{script}"], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    with gateway:
        assert gateway.stdout is not None
        url = gateway.stdout.readline().strip()
        message = call("tools/call", name="pid", arguments={})
        answer = await asyncio.to_thread(post, url, message)
        child = int(answer["result"]["content"][0]["text"])
        family = [
            child,
            *map(int, Path(f"/proc/{child}/task/{child}/children").read_text().split()),
        ]
        assert len(family) == 2
        assert all(alive(pid) for pid in family)
        gateway.kill()
    for pid in family:
        await gone(pid)


async def test_a_watch_that_somebody_ended_is_kept_anew_with_the_next_child() -> None:
    children = [
        await asyncio.create_subprocess_exec("sleep", "600", start_new_session=True)
        for _ in range(2)
    ]
    reaper = OrphanReaper()
    try:
        await reaper.watch(children[0].pid)
        first = reaper._process
        assert first is not None
        first.kill()
        await first.wait()
        await reaper.watch(children[1].pid)
        await reaper.close()  # as when the gateway is killed: no child was taken back
        with anyio.fail_after(30):
            assert [await child.wait() for child in children] == [-signal.SIGTERM] * 2
    finally:
        for child in children:
            if child.returncode is None:
                child.kill()
