"""The commands of the page about a lost machine, on a new one."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.harness import REPOSITORY, new_place
from tests.replicas import Replica, filled

pytestmark = pytest.mark.e2e


def commands() -> list[str]:
    """Return what a person types, as the page has it."""
    page = (REPOSITORY / "docs" / "replica.md").read_text()
    _, _, section = page.partition("## The machine is lost\n")
    block = re.search(r"```console\n(.*?)```", section, re.DOTALL)
    assert block is not None
    return [line[2:] for line in block[1].splitlines() if line.startswith("$ ")]


def test_a_lost_machine_is_brought_back_by_the_commands_of_the_page(
    in_folder: Replica, tmp_path: Path
) -> None:
    replica = in_folder
    lost = new_place(tmp_path / "lost", shipped=True)
    filled(lost, replica, "first", "second")
    rows = lost.query("SELECT * FROM mcp_servers ORDER BY id")
    new = new_place(tmp_path / "new", shipped=True)
    for line in commands():
        program, *words = shlex.split(line.replace("file:///mnt/backups/gateway", replica.url))
        assert program == "local-mcp-gateway"
        done = new.run(*words)
        assert done.code == 0, done.stderr
    assert re.findall("first|second", done.stdout) == ["first", "second"]
    assert new.query("SELECT * FROM mcp_servers ORDER BY id") == rows
    with new.serve(env=replica.env) as gateway:
        gateway.wait_ready()
        assert gateway.wait_for("replica.started")["continued"] is True
