"""Child processes: how they ended is known."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.gateway.upstreams.large_responses import LineEnds
from local_mcp_gateway.gateway.upstreams.process import (
    ChildProcess,
    OrphanReaper,
    Output,
    spawn,
)
from local_mcp_gateway.gateway.upstreams.stdio import LineReader
from local_mcp_gateway.store.model import ServerDefinition, ServerKind
from tests.gateway.messages import call
from tests.gateway.processes import alive, gone
from tests.gateway.support import REPOSITORY, SERVERS

SILENT = Output(lambda _: iter(()), lambda: None)


async def spawned(server: ServerDefinition, stdout: Output = SILENT) -> ChildProcess:
    child = spawn(server)
    await child.connect(stdout, SILENT, lambda: None)
    return child


@pytest.mark.asyncio(loop_factories=["uvloop", "asyncio"])
async def test_no_child_is_reaped_behind_the_back_of_who_waits_for_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cat = ServerDefinition("cat", ServerKind.STDIO, command="cat")
    for _ in range(12):  # a race that was lost one time in five
        children = [await spawned(cat) for _ in range(4)]
        await asyncio.gather(*(child.end() for child in children))
        assert [child.returncode for child in children] == [0] * 4
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


@pytest.mark.asyncio(loop_factories=["uvloop", "asyncio"])
async def test_a_child_whose_stdin_somebody_else_keeps_open_and_full_can_be_ended() -> None:
    """It has left the group, so no signal reaches it, and it never reads what is still to be written."""
    script = "exec 3<&0; setsid sleep 600 <&3 & echo $!; exec sleep 600"
    heard = asyncio.get_running_loop().create_future()

    def receive(chunk: bytes) -> Iterator[None]:
        heard.set_result(int(chunk))
        yield

    keeping = ServerDefinition("keeps", ServerKind.STDIO, command="sh", args=("-c", script))
    child = await spawned(keeping, Output(receive, lambda: None))
    child.write(bytes(1024 * 1024))
    with anyio.fail_after(30):
        other = await heard
        try:
            await child.end()
        finally:
            os.kill(other, signal.SIGKILL)


def cut(whole: bytes, size: int) -> list[bytes]:
    return [whole[start : start + size] for start in range(0, len(whole), size)]


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"))), st.integers(1, 9)
)
def test_lines_come_out_as_they_went_in(texts: list[str], size: int) -> None:
    lines = LineReader(10**6)
    whole = "".join(text + "\r\n" for text in texts).encode()
    found = [line.decode() for chunk in cut(whole, size) for line in lines.feed(chunk)]
    assert found == texts


@pytest.mark.parametrize("size", [1, 3, 7, 100, 10**6])
def test_each_line_beyond_the_limit_leaves_both_its_ends(size: int) -> None:
    lines, found, ends = LineReader(5000), [], list[LineEnds]()
    long = b'{"id":7,' + b"x" * 20_000 + b',"id":8}\n'
    for chunk in cut(b"a\n" + long + b"b\n" + long, size):
        found += list(lines.feed(chunk))
        ends += lines.overflowed
    assert found == [b"a", b"b"]
    assert len(ends) == 2
    assert all(end.head.startswith(b'{"id":7,') for end in ends)
    assert all(end.tail.endswith(b',"id":8}') for end in ends)


@pytest.mark.parametrize("size", [0, 1])
def test_a_line_of_exactly_the_limit_passes(size: int) -> None:
    lines = LineReader(100)
    whole = b"x" * (100 + size) + b"\n"
    for step in range(1, len(whole) + 1):
        found = [line for chunk in cut(whole, step) for line in lines.feed(chunk)]
        assert found == [whole[:-1]][: 1 - size]


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


@pytest.mark.asyncio(loop_factories=["uvloop", "asyncio"])
async def test_a_watch_that_somebody_ended_is_kept_anew_with_the_next_child() -> None:
    children = [
        await asyncio.create_subprocess_exec("sleep", "600", start_new_session=True)
        for _ in range(2)
    ]
    reaper = OrphanReaper()
    try:
        reaper.watch(children[0].pid)
        first = reaper._process
        assert first is not None
        first.kill()
        await reaper._exited.wait()
        reaper.watch(children[1].pid)
        await reaper.close()  # as when the gateway is killed: no child was taken back
        with anyio.fail_after(30):
            assert [await child.wait() for child in children] == [-signal.SIGTERM] * 2
    finally:
        for child in children:
            if child.returncode is None:
                child.kill()
