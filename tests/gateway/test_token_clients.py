"""Clients of Node.js at a gateway that wants tokens: each shows our sentence, none opens a browser, a token lets it in.

The Python SDK and curl are in `clients/test_admission.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from mcp import Client, StdioServerParameters

from tests.fetched import npm
from tests.gateway.messages import HELLO
from tests.harness import DEADLINE_S, Finished, Place, new_place

pytestmark = [pytest.mark.nightly, pytest.mark.npm]
SCOPE: Final = "@modelcontextprotocol"
SDKS: Final = (f"{SCOPE}/sdk@1.32.2", f"{SCOPE}/client@2.4.0", f"{SCOPE}/core@2.4.0")
INSPECTOR: Final = (f"{SCOPE}/inspector@2.12.0",)
REMOTE: Final = ("mcp-remote@0.15.1",)
SCRIPT: Final = Path(__file__).with_name("real_client.cjs")
PLAIN: Final = Path(__file__).parent / "servers" / "plain.py"
COMMAND: Final = "local-mcp-gateway token create NAME"


@dataclass(frozen=True, slots=True)
class Strict:
    """A running gateway that wants a token of everybody, one token, and a desktop that notes its browser."""

    place: Place
    url: str
    token: str
    cached: Callable[[str, tuple[str, ...]], Path]

    def run(self, *command: str | Path, stdin: str = "") -> Finished:
        """Run a client to its end, or until it says no more."""
        environment = {
            **os.environ,
            "HOME": str(self.place.home),
            "PATH": f"{self.place.root / 'desktop'}:{os.environ['PATH']}",
            "MCP_REMOTE_CONFIG_DIR": str(self.place.root / "remote"),
        }
        done = subprocess.run(
            list(map(str, command)), input=stdin, env=environment, cwd=self.place.root,
            capture_output=True, text=True, timeout=DEADLINE_S, check=False,
        )  # fmt: skip
        return Finished(done.returncode, done.stdout, done.stderr)

    @property
    def opened(self) -> str:
        """Return the addresses that a browser was opened at."""
        noted = self.place.root / "opened"
        return noted.read_text() if noted.exists() else ""


@pytest.fixture(scope="module")
def strict(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Strict]:
    place = new_place(tmp_path_factory.mktemp("strict"), shipped=True)
    assert place.run("server", "add", "plain", "--", sys.executable, PLAIN).code == 0
    token = place.run("token", "create", "ci").stdout.strip()
    desktop = place.root / "desktop"
    desktop.mkdir()
    for name in ("xdg-open", "open", "x-www-browser", "sensible-browser"):
        browser = desktop / name
        browser.write_text(f'#!/bin/sh\necho "$@" >> {place.root}/opened\n')
        browser.chmod(0o755)

    def cached(name: str, packages: tuple[str, ...]) -> Path:
        return npm(pytestconfig, name, packages)

    with place.serve(env={"LMG_GATEWAY__REQUIRE_TOKEN": "always"}) as gateway:
        url = gateway.wait_ready().url
        yield Strict(place, f"{url}/mcp", token, cached)
        assert gateway.stop() == 0


@pytest.mark.parametrize("signs_in", [False, True], ids=["plain", "with OAuth"])
@pytest.mark.parametrize("sdk", [1, 2])
def test_the_typescript_sdks_show_the_sentence(strict: Strict, sdk: int, *, signs_in: bool) -> None:
    folder = strict.cached("npm-sdks", SDKS)
    asked: dict[str, Any] = {
        "sdk": sdk, "url": strict.url, "tool": "echo", "arguments": {"a": 1}, "signs_in": signs_in
    }  # fmt: skip

    def used(**more: Any) -> Finished:
        return strict.run("sh", "-c", 'cd "$1" && exec node "$2" "$3"', "sh", folder, SCRIPT,
                          json.dumps({**asked, **more}))  # fmt: skip

    for headers in ({}, {"Authorization": f"Bearer {strict.token}x"}):
        done = used(headers=headers)
        assert done.code == 1
        assert COMMAND in done.stderr
        assert "BROWSER" not in done.stderr
    done = used(headers={"Authorization": f"Bearer {strict.token}"})
    assert done.code == 0, done.stderr
    assert len(done.json()["tools"]) == 13


def test_the_inspector_shows_the_sentence_and_opens_no_browser(strict: Strict) -> None:
    program = strict.cached("npm-inspector", INSPECTOR) / "node_modules" / ".bin" / "mcp-inspector"
    listing = (program, "--cli", strict.url, "--transport", "http", "--method", "tools/list")
    # Without a terminal, and with neither of these, it says something of its own.
    as_on_a_terminal = ("env", "MCP_AUTO_OPEN_ENABLED=true")
    for command in ((*listing, "--stored-auth-only"), (*as_on_a_terminal, *listing)):
        refused = strict.run(*command)
        assert refused.code != 0
        assert COMMAND in refused.stdout + refused.stderr
    header = ("--header", f"Authorization: Bearer {strict.token}")
    done = strict.run(*listing, *header)
    assert done.code == 0, done.stderr
    assert len(done.json()["tools"]) == 13
    assert strict.opened == ""


async def test_mcp_remote_shows_the_sentence_and_opens_no_browser(strict: Strict) -> None:
    program = strict.cached("npm-remote", REMOTE) / "node_modules" / ".bin" / "mcp-remote"
    for header in ((), ("--header", "Authorization:Bearer wrong")):
        refused = strict.run(program, strict.url, *header, stdin=json.dumps(HELLO) + "\n")
        assert COMMAND in refused.stdout + refused.stderr
        assert strict.opened == ""
    header = ("--header", f"Authorization:Bearer {strict.token}")
    parameters = StdioServerParameters(
        command=str(program),
        args=[strict.url, *header],
        env={**os.environ, "HOME": str(strict.place.home)},
    )
    async with Client(parameters) as client:
        assert len((await client.list_tools()).tools) == 13
    assert strict.opened == ""
