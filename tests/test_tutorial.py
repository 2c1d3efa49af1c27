"""The tutorial is a transcript: its commands are run, in order, and its outputs are compared.

In a block marked `console` a line that begins with `$ ` is a command (`> ` continues it) and what
follows is its output. `…` stands for any text within a line, and alone on a line for any lines. A
command that ends in ` &` runs in the background: the lines below it are waited for. Blocks marked
`sql title=FILE` are files that the reader saves.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.harness import DEADLINE_S, REPOSITORY, clean_environment

pytestmark = pytest.mark.e2e


@dataclass(frozen=True, slots=True)
class Step:
    """A command with the output that the page promises, or a file to save."""

    line: int
    command: str = ""
    expected: tuple[str, ...] = ()
    file: str = ""


def steps(text: str) -> Iterator[Step]:
    """Yield the steps of a page."""
    for block in re.finditer(
        r"^```(\w+)(?: title=(\S+))?\n(.*?)^```", text, re.MULTILINE | re.DOTALL
    ):
        language, title, body = block.groups()
        line = text[: block.start()].count("\n") + 2
        if title:
            yield Step(line, file=title, expected=(body,))
        elif language == "console":
            yield from transcript(body, line)


def transcript(body: str, line: int) -> Iterator[Step]:
    """Yield the commands of one block."""
    for part in re.split(r"^(?=\$ )", body, flags=re.MULTILINE):
        lines = part.rstrip("\n").split("\n")
        if lines[0].startswith("$ "):
            command = lines[0][2:]
            rest = lines[1:]
            while rest and rest[0].startswith("> "):
                command += "\n" + rest.pop(0)[2:]
            yield Step(line, command, tuple(rest))
        line += part.count("\n")


def pattern(expected: tuple[str, ...]) -> re.Pattern[str]:
    """Return what the output has to match."""
    lines = [
        r"(?:.*\n)*?"
        if text.strip() == "…"
        else re.escape(text.rstrip()).replace("…", ".*?") + r"\s*\n"
        for text in expected
    ]
    return re.compile("".join(lines))


@dataclass
class Reader:
    """The reader's terminal: one folder, one home, processes in the background."""

    folder: Path
    env: dict[str, str]
    background: list[subprocess.Popen[str]] = field(default_factory=list)

    def do(self, step: Step) -> None:
        """Carry out one step and compare."""
        if step.file:
            path = self.folder / step.file
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(".part")
            temporary.write_text(step.expected[0])
            temporary.rename(path)
        elif step.command.endswith(" &"):
            self.start(step)
        else:
            done = subprocess.run(
                ["bash", "-c", step.command],
                cwd=self.folder,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=DEADLINE_S,
                check=False,
            )
            self.compare(step, done.stdout)

    def start(self, step: Step) -> None:
        """Start a command in the background and wait until it has said what the page shows."""
        process = subprocess.Popen(
            ["bash", "-c", "exec " + step.command.removesuffix(" &")],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.background.append(process)
        said: list[str] = []
        enough = threading.Event()

        def read() -> None:
            assert process.stdout is not None
            with process.stdout:
                for line in process.stdout:
                    said.append(line)
                    if pattern(step.expected).fullmatch("".join(said)):
                        enough.set()
            enough.set()

        threading.Thread(target=read, daemon=True).start()
        enough.wait(DEADLINE_S)
        self.compare(step, "".join(said), whole=False)

    def compare(self, step: Step, output: str, *, whole: bool = True) -> None:
        wanted = pattern(step.expected)
        text = output if output.endswith("\n") or not output else output + "\n"
        matched = wanted.fullmatch(text) if whole else wanted.match(text)
        assert matched, (
            f"line {step.line}: $ {step.command}\n--- said:\n{output}\n--- the page:\n"
            + "\n".join(step.expected)
        )

    def leave(self) -> None:
        """Stop what runs in the background, as Ctrl-C does."""
        for process in self.background:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(DEADLINE_S)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    (tmp_path / "home").mkdir()
    folder = tmp_path / "tutorial"
    folder.mkdir()
    env = clean_environment(tmp_path / "home")
    (tmp_path / "home" / "local-mcp-gateway").symlink_to(REPOSITORY)
    env["LMG_GATEWAY__PORT"] = "0"  # the page says 3001; a test takes what is free
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    person = Reader(folder, env)
    try:
        yield person
    finally:
        person.leave()


def test_every_line_of_the_tutorial_is_as_the_page_says(reader: Reader) -> None:
    every = list(steps((REPOSITORY / "docs" / "tutorial.md").read_text()))
    assert len(every) > 10
    for step in every:
        reader.do(step)
