"""Record the first minute as an animated picture: the gateway in dev mode above, a person's shell below.

    python docs/recordings/screen.py          # writes screen.svg next to this file

Both are real terminals of a fresh clone. Long waits are shortened; times within them are not. The picture
needs no script: each line appears by a CSS animation, and stands still where less motion is asked for.
"""

from __future__ import annotations

import os
import pty
import re
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fcntl import ioctl
from itertools import groupby
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

COLUMNS = 104
LONGEST_WAIT_S = 1.5
READING_S = 1.5
STILL_S = 4.0
"""How long the last picture stays."""
CHARACTER, LINE = 7.25, 17.0
COLOURS = {"31": "#ff8a80", "32": "#8fd694", "33": "#f0c674", "34": "#8ab4f8", "36": "#7fd1d8"}
ESCAPE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\x1b\][^\x07]*\x07")
STYLE = """\
text { font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #d7dae0; white-space: pre }
.b { font-weight: 700 } .d { fill: #8b919c }"""


class Terminal:
    """A process in a terminal of its own, and what it wrote, with the time of each piece."""

    def __init__(self, command: Sequence[str], folder: Path, environment: dict[str, str]) -> None:
        self._descriptor, far = pty.openpty()
        ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=far,
            stdout=far,
            stderr=far,
            start_new_session=True,
        )
        os.close(far)
        self.pieces: list[tuple[float, str]] = []
        self._arrived = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError):  # EIO: the process has ended
            while data := os.read(self._descriptor, 65_536):
                with self._arrived:
                    self.pieces.append((time.monotonic(), data.decode(errors="replace")))
                    self._arrived.notify_all()

    def text(self) -> str:
        return ESCAPE.sub("", "".join(piece for _, piece in self.pieces))

    def wait_for(self, words: str, times: int = 1) -> None:
        with self._arrived:
            found = self._arrived.wait_for(lambda: self.text().count(words) >= times, 60)
        assert found, f"{words!r} did not come:\n{self.text()}"

    def type(self, line: str) -> None:
        """Type a line, after the time that a reader needs for the ones before."""
        time.sleep(READING_S)
        os.write(self._descriptor, line.encode() + b"\n")

    def end(self, number: int) -> None:
        os.killpg(self.process.pid, number)
        self.process.wait()
        self._reader.join()
        os.close(self._descriptor)


@contextmanager
def running(
    command: Sequence[str], folder: Path, environment: dict[str, str], number: int
) -> Iterator[Terminal]:
    terminal = Terminal(command, folder, environment)
    try:
        yield terminal
    finally:
        terminal.end(number)


def record(clone: Path) -> tuple[Terminal, Terminal]:
    """Play the first minute in a clone; each step waits for what the gateway says of it."""
    home = clone.parent / "home"
    home.mkdir()
    environment = {
        "PATH": f"{clone}/.venv/bin:{os.environ['PATH']}",
        "HOME": str(home),
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
        "PS1": r"\[\e[32m\]$\[\e[0m\] ",
        "LMG_DATABASE__PATH": f"{clone}/.demo/gateway.db",  # what examples/demo.toml says
        "LMG_SECRETS__KEY_FILE": f"{clone}/.demo/secrets.key",
    }
    shell = ("bash", "--norc", "--noprofile", "--noediting", "-i")
    with running(shell, clone, environment, signal.SIGKILL) as person:
        person.wait_for("$ ")
        with running(("make", "--silent", "run"), clone, environment, signal.SIGINT) as gateway:
            gateway.wait_for("dev.watching")
            person.type("local-mcp-gateway tools")
            person.wait_for("$ ", 2)
            person.type("local-mcp-gateway call get_current_time timezone=UTC")
            person.wait_for("$ ", 3)
            person.type(
                "echo 'CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT);' > migrations/0099_notes.sql"
            )
            gateway.wait_for("migration.hot_applied")
            person.type(
                "echo 'ALTER TABLE notes ADD COLUMN done INTEGR DEFALT 0;' > migrations/0100_done.sql"
            )
            gateway.wait_for("0100_done.sql, line 1")
            person.type(
                "echo 'ALTER TABLE notes ADD COLUMN done INTEGER DEFAULT 0;' > migrations/0100_done.sql"
            )
            gateway.wait_for("migration.hot_applied", 2)
            seen = len(gateway.pieces)
    del gateway.pieces[seen:]  # how it stopped
    return gateway, person


class Line(NamedTuple):
    """A line of a terminal, with its escape sequences, and when it appeared."""

    at: float
    text: str


def lines_of(terminal: Terminal) -> list[Line]:
    """Return its lines: of one that was written over, only what stayed."""
    found: list[Line] = []
    rest = ""
    for at, piece in terminal.pieces:
        *whole, rest = (rest + piece).replace("\r\n", "\n").split("\n")
        for text in whole:
            found += (Line(at, part) for part in wrapped(text.rpartition("\r")[2]))
    return found


def wrapped(text: str) -> list[str]:
    """Cut a line where the terminal does; escape sequences take no place."""
    parts, used = [""], 0
    for piece in re.split(r"(\x1b\[[0-9;?]*[A-Za-z])", text):
        if piece.startswith("\x1b"):
            parts[-1] += piece
            continue
        for character in piece:
            if used == COLUMNS:
                parts.append("")
                used = 0
            parts[-1] += character
            used += 1
    return parts


def spans(text: str) -> Iterator[str]:
    """Yield one line as SVG: each run of a style at its column."""
    column, classes, colour = 0, set[str](), ""
    place = 0
    for match in [*ESCAPE.finditer(text), None]:
        run = text[place : match.start() if match else len(text)]
        if run.strip():
            attributes = f' class="{" ".join(sorted(classes))}"' if classes else ""
            attributes += f' fill="{colour}"' if colour else ""
            lead = len(run) - len(run.lstrip())
            yield f'<tspan x="{(column + lead) * CHARACTER:g}"{attributes}>{escape(run.strip())}</tspan>'
        column += len(run)
        if match is None:
            return
        place = match.end()
        if match[2] == "m":
            for code in (match[1] or "0").split(";"):
                classes = {"1": classes | {"b"}, "2": classes | {"d"}}.get(
                    code, set() if code in {"", "0"} else classes
                )
                colour = COLOURS.get(code, "" if code in {"", "0"} else colour)


def draw(panes: Sequence[tuple[str, Terminal, int]], hidden: dict[str, str]) -> str:
    """Draw the terminals one above the other: title, terminal, and how many lines are seen."""
    shown = [(title, lines_of(terminal), height) for title, terminal, height in panes]
    clock = shortened({line.at for _, lines, _ in shown for line in lines})
    total = max(clock.values()) + STILL_S
    width = COLUMNS * CHARACTER + 24
    style, parts, top = [STYLE], [], 0.0
    for number, (title, lines, height) in enumerate(shown):
        texts, scroll = [], ["0% { transform: none }"]
        for at, group in groupby(enumerate(lines), key=lambda item: item[1].at):
            share = 100 * clock[at] / total
            name = f"p{number}-{len(scroll)}"
            style.append(
                f"@keyframes {name} {{ 0% {{ opacity: 0 }} {share:.2f}% {{ opacity: 1 }} }}"
            )
            items = list(group)
            marked = "".join(
                f'<text y="{index * LINE:g}">{"".join(spans(tidied(line.text, hidden)))}</text>'
                for index, line in items
            )
            texts.append(f'<g style="animation-name: {name}">{marked}</g>')
            above = max(0, items[-1][0] + 1 - height) * LINE
            scroll.append(f"{share:.2f}% {{ transform: translateY(-{above:g}px) }}")
        last = max(0, len(lines) - height) * LINE
        style += [
            f"@keyframes scroll{number} {{ {' '.join(scroll)} }}",
            f".scroll{number} {{ transform: translateY(-{last:g}px); animation-name: scroll{number} }}",
        ]
        parts.append(
            f'<text x="12" y="{top + 19:g}" class="d">{escape(title)}</text>'
            f'<svg x="12" y="{top + 28:g}" width="{width - 24:g}" height="{height * LINE + 4:g}">'
            f'<g class="scroll{number}"><g transform="translate(0 12)">{"".join(texts)}</g></g></svg>'
        )
        top += height * LINE + 40
    style += [
        f"g {{ animation: {total:.1f}s step-end infinite }}",
        "@media (prefers-reduced-motion: reduce) { g { animation: none } }",
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {top:g}" role="img"'
        ' aria-label="A tool is called; a migration is saved, refused and corrected while the gateway runs">\n'
        "<style>\n" + "\n".join(style) + "\n</style>\n"
        '<rect width="100%" height="100%" rx="10" fill="#16181d"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def shortened(times: set[float]) -> dict[float, float]:
    """Give each moment its second in the picture."""
    found: dict[float, float] = {}
    second, before = 0.6, 0.0
    for at in sorted(times):
        second += min(at - before, LONGEST_WAIT_S) if before else 0.0
        found[at], before = second, at
    return found


def tidied(text: str, hidden: dict[str, str]) -> str:
    for path, shown in hidden.items():
        text = text.replace(path, shown)
    return text


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        clone = Path(place) / "local-mcp-gateway"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        subprocess.run([clone / "requirements" / "install", ".venv", "demo"], cwd=clone, check=True)
        gateway, person = record(clone)
        hidden = {f"{clone}/": "", str(clone): "~/local-mcp-gateway"}
        panes = [("make run", gateway, 22), ("a second terminal", person, 12)]
        (HERE / "screen.svg").write_text(draw(panes, hidden))


if __name__ == "__main__":
    sys.exit(main())
