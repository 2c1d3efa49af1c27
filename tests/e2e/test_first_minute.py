"""The first minute, played on terminals of 80 columns: from a clone to a client that calls a tool.

`python -m tests.e2e.test_first_minute` plays it and writes docs/recordings/first-minute.md.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import tempfile
import termios
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client

from tests.e2e.test_fresh_clone import environment
from tests.harness import DEADLINE_S, REPOSITORY
from tests.needs import open_terminal

pytestmark = pytest.mark.nightly

COLUMNS = 80
PROMPT = "you$ "
STYLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
GATEWAY = ".venv/bin/local-mcp-gateway --config examples/demo.toml"
MCP_JSON = """\
{
  // What VS Code asks for when it starts a server.
  "inputs": [{ "id": "ZONE", "type": "promptString", "description": "Time zone" }],
  "servers": {
    "clock": {
      "type": "stdio",
      "command": ".venv/bin/mcp-server-time", /* from the demo */
      "args": ["--local-timezone", "${input:ZONE}"],
    },
  },
}
"""


class Screen:
    """A shell on a terminal of 80 columns, and everything that it has shown."""

    def __init__(self, folder: Path, home: Path) -> None:
        self._ours, theirs = open_terminal()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
        env = {**environment(home), "PS1": PROMPT, "TERM": "xterm", "ENV": ""}
        self.process = subprocess.Popen(
            ["sh", "-i"],
            cwd=folder,
            env=env,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  before exec, one thread
        )
        os.close(theirs)
        self._shown = ""
        self._arrived = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError):  # EIO: the shell has ended
            while data := os.read(self._ours, 65_536):
                with self._arrived:
                    self._shown += data.decode(errors="replace").replace("\r\n", "\n")
                    self._arrived.notify_all()

    @property
    def text(self) -> str:
        """What was shown, without colours."""
        return STYLE.sub("", self._shown)

    def wait_for(self, words: str, *, after: int = 0, deadline_s: float = DEADLINE_S) -> None:
        with self._arrived:
            found = self._arrived.wait_for(lambda: words in self.text[after:], deadline_s)
        assert found, f"{words!r} was not shown:\n{self.text}"

    def run(self, command: str, *, then: str = PROMPT, deadline_s: float = DEADLINE_S) -> str:
        """Type a command, wait until something is shown after it, and return what was shown."""
        self.wait_for(PROMPT)
        after = len(self.text)
        os.write(self._ours, command.encode() + b"\n")
        self.wait_for("\n", after=after)
        self.wait_for(then, after=after + len(command), deadline_s=deadline_s)
        return self.text[after:]

    def answer(self, word: str) -> None:
        """Answer a question, and wait until the command has ended."""
        after = len(self.text)
        os.write(self._ours, word.encode() + b"\n")
        self.wait_for(PROMPT, after=after)

    def end(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(os.tcgetpgrp(self._ours), signal.SIGINT)
        os.write(self._ours, b"\nexit\n")
        self.process.wait(DEADLINE_S)
        self._reader.join(DEADLINE_S)
        os.close(self._ours)


@contextmanager
def screen(folder: Path, home: Path) -> Iterator[Screen]:
    opened = Screen(folder, home)
    try:
        yield opened
    finally:
        opened.end()


@dataclass(frozen=True, slots=True)
class Minute:
    """What the two terminals have shown, and what the client's call has given."""

    gateway: str
    person: str
    configured: dict[str, Any]
    answer: str


def play(root: Path) -> Minute:
    """Play the first minute in a folder, with an empty home."""
    home = root / "home"
    home.mkdir()
    with ExitStack() as screens:
        first = screens.enter_context(screen(root, home))
        first.run(f"git clone -q {REPOSITORY} gateway")
        first.run("cd gateway")
        ready = "writes this into the client's file."
        first.run('ZONE=UTC make run ARGS="--port 0"', then=ready, deadline_s=5 * DEADLINE_S)
        (root / "gateway" / ".demo" / "mcp.json").write_text(MCP_JSON)
        second = screens.enter_context(screen(root / "gateway", home))
        second.run(f"{GATEWAY} server import .demo/mcp.json --profile mine", then="[y/N]: ")
        second.answer("y")
        second.run(f"{GATEWAY} connect claude-code --profile mine", then="[y/N]: ")
        second.answer("y")
        second.run(f"{GATEWAY} tools --profile mine")
        configured = json.loads((home / ".claude.json").read_text())["mcpServers"]
        (server,) = configured.values()
        answer = anyio.run(called, server["url"])
        second.run(f"{GATEWAY} server list")
        return Minute(first.text, second.text, configured, answer)


async def called(url: str) -> str:
    """Call a tool with the official client at the address that was written."""
    async with Client(url) as client:
        result = await client.call_tool("get_current_time", {"timezone": "UTC"})
    assert not result.is_error
    return str(getattr(result.content[0], "text", ""))


@pytest.fixture(scope="module")
def minute(tmp_path_factory: pytest.TempPathFactory) -> Minute:
    return play(tmp_path_factory.mktemp("minute"))


def test_the_client_calls_a_tool_of_the_imported_server(minute: Minute) -> None:
    assert json.loads(minute.answer)["timezone"] == "UTC"
    assert list(minute.configured) == ["local-gateway"]


def test_what_was_done_is_said_at_each_step(minute: Minute) -> None:
    assert "setup: installing" in minute.gateway
    assert "claude mcp add --transport http" in minute.gateway
    assert "clock" in minute.person
    assert "Claude Code points to http://127.0.0.1:" in minute.person.replace("\n", " ")
    assert "get_current_time" in minute.person


def test_no_line_is_wider_than_the_terminal_and_nothing_went_wrong(minute: Minute) -> None:
    """Lines to paste stay whole, and a path or an address is never broken."""
    for line in wide_lines(minute.person):
        assert PROMPT in line or '"' in line or "/" in line, line
    for text in (minute.gateway, minute.person):
        assert "Traceback" not in text
        assert "✗" not in text


def wide_lines(text: str) -> Sequence[str]:
    return [line for line in text.splitlines() if len(line) > COLUMNS]


def shown_in(text: str) -> str:
    """Return what a terminal has shown, without the prompt that waits at its end."""
    return text.strip().removesuffix(PROMPT.strip()).replace(PROMPT, "$ ").strip()


def main() -> None:
    """Play it and write down what was shown."""
    with tempfile.TemporaryDirectory() as folder:
        played = play(Path(folder))
        hidden = {
            str(REPOSITORY): "https://…/local-mcp-gateway",
            f"{folder}/home": "~",
            folder: "~",
        }
    page = [
        "# The first minute",
        "",
        "Played on terminals of 80 columns by `python -m tests.e2e.test_first_minute`.",
    ]
    for caption, text in (
        ("From a clone to a gateway that runs:", played.gateway),
        ("In a second terminal: the servers of VS Code, a client, and its tools.", played.person),
        ("The official client, at the address in Claude Code's file:", played.answer),
    ):
        page += ["", caption, "", "```console", shown_in(text), "```"]
    target = REPOSITORY / "docs" / "recordings" / "first-minute.md"
    written = "\n".join(page) + "\n"
    for path, shown in hidden.items():
        written = written.replace(path, shown)
    target.write_text(written)


if __name__ == "__main__":
    main()
