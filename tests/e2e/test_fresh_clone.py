"""What a person does first: clone, `make run`, paste the address into a client, save a migration.

A fresh clone in an empty home, nothing but git, make and Python. It takes half a minute, most of it
the installation of the locked dependencies.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mcp import Client

from tests.harness import (
    DEADLINE_S,
    REPOSITORY,
    GatewayProcess,
    MigrationFolder,
    clean_environment,
    with_children,
)

pytestmark = pytest.mark.e2e


@dataclass(frozen=True, slots=True)
class Clone:
    """A clone in which `make run` is running."""

    path: Path
    home: Path
    gateway: GatewayProcess

    @property
    def data(self) -> Path:
        return self.path / ".demo"


def environment(home: Path) -> dict[str, str]:
    """Return the environment of a person who has never heard of us, with this test's Python.

    pip's cache of downloads is shared: what is tested is ours, not the speed of a network.
    """
    python = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    cache = os.environ.get("PIP_CACHE_DIR", str(Path.home() / ".cache" / "pip"))
    return clean_environment(home, PYTHON=str(python), PIP_CACHE_DIR=cache)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    root = tmp_path_factory.mktemp("fresh")
    home = root / "home"
    home.mkdir()
    path = root / "clone"
    subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(path)], check=True)
    read_end, write_end = os.pipe()
    process = subprocess.Popen(
        ["make", "run", "ARGS=--port 0"],
        cwd=path,
        env={**environment(home), "LMG_LOG__FORMAT": "json"},
        stdin=subprocess.DEVNULL,
        stdout=write_end,
        stderr=write_end,
        text=True,
        start_new_session=True,
    )
    os.close(write_end)
    gateway = GatewayProcess(process, os.fdopen(read_end))
    try:
        gateway.wait_for("service.ready", deadline_s=DEADLINE_S * 5)
        yield Clone(path, home, gateway)
    finally:
        with_children(process)
        gateway.wait()


async def test_a_client_lists_and_calls_the_tools_of_both_demo_servers(clone: Clone) -> None:
    async with Client(f"{clone.gateway.url}/mcp/demo") as client:
        tools = {tool.name for tool in (await client.list_tools()).tools}
        assert {"get_current_time", "add_note"} <= tools
        now = await client.call_tool("get_current_time", {"timezone": "UTC"})
        assert not now.is_error
        kept = await client.call_tool("add_note", {"title": "fresh", "text": "clone"})
        assert not kept.is_error


def test_the_address_and_the_lines_to_paste_are_printed(clone: Clone) -> None:
    said = "\n".join(clone.gateway.lines)
    assert f"{clone.gateway.url}/mcp/demo" in said
    assert "claude mcp add --transport http" in said
    assert all(client in said for client in ("Claude Desktop", "Cursor", "VS Code", "Codex"))
    assert "`local-mcp-gateway connect CLIENT` writes this into the client's file." in said


def test_the_commands_of_the_readme_work_beside_it(clone: Clone) -> None:
    text = (clone.path / "README.md").read_text()
    block = text.split("in a second terminal:")[1].split("```")[1]
    commands = [line[2:] for line in block.splitlines() if line.startswith("$ ")]
    assert len(commands) >= 3
    for command in commands:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=clone.path,
            env=environment(clone.home),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def test_it_leaves_the_home_as_it_was_and_the_clone_clean(clone: Clone) -> None:
    """Whoever has a gateway installed already finds its database untouched."""
    ours = [path for path in clone.home.rglob("*") if "local-mcp-gateway" in path.name]
    assert ours == []
    told = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=all"],
        cwd=clone.path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == ""


def test_what_it_keeps_is_its_owners_alone(clone: Clone) -> None:
    assert clone.data.stat().st_mode & 0o777 == 0o700
    for file in clone.data.rglob("*"):
        assert file.stat().st_mode & 0o077 == 0, file


async def test_a_saved_migration_is_applied_while_it_runs(clone: Clone) -> None:
    gateway = clone.gateway
    folder = MigrationFolder(clone.path / "migrations")
    number = len(folder.journal())
    tag = f"{number:04d}_add_colour"
    seen = len(gateway.events)
    folder.write(tag, "ALTER TABLE profiles ADD COLUMN colour TEXT;\n")
    gateway.wait_for("migration.hot_applied", after=seen)
    assert folder.journal()[-1]["tag"] == tag
    assert len(list((clone.data / "backups").glob(f"*{tag}.db"))) == 1

    seen = len(gateway.events)
    broken = f"{number + 1:04d}_broken"
    file = folder.write(
        broken, "ALTER TABLE profiles ADD COLUMN mood TEXT;\nUPDATE profils SET mood = 'x';\n"
    )
    refused = gateway.wait_for("migration.hot_refused", after=seen)
    assert broken in str(refused)
    assert "line 2" in str(refused)
    assert "profils" in str(refused)
    async with Client(f"{gateway.url}/mcp/demo") as client:
        assert (await client.list_tools()).tools
    file.unlink()


def test_asked_to_stop_it_leaves_nothing_behind(clone: Clone) -> None:
    os.killpg(clone.gateway.process.pid, signal.SIGTERM)
    clone.gateway.wait()
    assert "service.stopped" in clone.gateway.names()


@pytest.mark.nightly  # installs all that the tests need; CI's own `make test` is in a fresh clone too
def test_the_tests_run_in_the_same_clone(clone: Clone) -> None:
    done = subprocess.run(
        ["make", "test", "ARGS=tests/test_packaging.py -q -k 'make_alone or bundled'"],
        cwd=clone.path,
        # At its end pytest looks through the folders of earlier runs, which the tests around this one remove.
        env={**environment(clone.home), "PYTEST_DEBUG_TEMPROOT": str(clone.home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
