"""A stdio server that speaks both eras serves each client in the client's own."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from mcp import Client

from tests.conformance.sides import EVERYTHING
from tests.gateway.processes import alive
from tests.gateway.routing.test_input_required import name, roots
from tests.gateway.support import gateway_of, stdio
from tests.gateway.using import use, use_modern


async def test_each_client_meets_the_server_in_its_own_era(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, EVERYTHING) as running:
        tool = "test_input_required_result_elicitation"
        async with Client(running.url, elicitation_callback=name) as client:
            assert "Hello, Ada!" in str((await client.call_tool(tool, {})).content)
        async with Client(running.url, mode="legacy", list_roots_callback=roots) as client:
            answer = await client.call_tool("test_elicitation", {"message": "m"})
            assert "not supported" in str(answer.content)


@pytest.mark.parametrize("more", [(), ("--mute",)])
async def test_a_second_child_runs_only_once_a_stateless_client_came(
    tmp_path: Path, more: tuple[str, ...]
) -> None:
    async with gateway_of(tmp_path, stdio("twice", "twice.py", *more)) as running:
        first = int(await use(running, "pid"))
        assert int(await use(running, "pid")) == first
        second = int(await use_modern(running, "pid"))
        assert second != first
        assert int(await use_modern(running, "pid")) == second
        assert int(await use(running, "pid")) == first
        os.kill(second, signal.SIGKILL)
        line = "the second child, for stateless clients, has ended: it was ended by signal 9"
        await running.heard("upstream.logged", line=line)
        third = int(await use_modern(running, "pid"))
        assert third not in {first, second}
        assert int(await use(running, "pid")) == first
    assert not alive(first)
    assert not alive(third)


@pytest.mark.parametrize("fault", ["--single", "--refuses"])
async def test_a_server_that_cannot_run_twice_serves_both_translated(
    tmp_path: Path, fault: str
) -> None:
    async with gateway_of(tmp_path, stdio("twice", "twice.py", fault, str(tmp_path))) as running:
        first = int(await use(running, "pid"))
        assert int(await use_modern(running, "pid")) == first
        assert int(await use_modern(running, "pid")) == first


@pytest.mark.parametrize("refuses", [True, False])
async def test_what_a_server_speaks_is_remembered_until_its_release_is_another(
    tmp_path: Path, *, refuses: bool
) -> None:
    release = tmp_path / "release"
    more = ("--refuses", str(tmp_path)) if refuses else ()
    twice = stdio("twice", "twice.py", "--release", str(release), *more)
    for version, asked in (("1", True), ("1", False), ("2", True), ("2", False)):
        release.write_text(version)
        async with gateway_of(tmp_path, twice) as running:
            first = int(await use(running, "pid"))
            if version == "2" and asked:
                await running.kept("twice", '"release":"2"')
            assert (int(await use_modern(running, "pid")) == first) is refuses
            assert (int(await use_modern(running, "pid")) == first) is refuses
            if asked and refuses:
                await running.wrote("asked")
            lines = [fields["line"] for name, fields in running.said if name == "upstream.logged"]
            assert lines.count("asked") == (asked and refuses)
            await running.kept("twice", '"both":' + ("false" if refuses else "true"))


# --- arguments that are repeated as headers ---------------------------------------------------------
