"""What a person sees on a terminal of 80 and of 120 columns: the program runs on a real one."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import termios
from collections.abc import Mapping

import pytest

from tests.harness import DEADLINE_S, Place, clean_environment
from tests.needs import open_terminal

COLOUR = re.compile(r"\x1b\[\d*m")


def on_a_terminal(
    place: Place, *arguments: str, columns: int, env: Mapping[str, str] | None = None
) -> str:
    """Run a command whose stdout and stderr are a terminal of this width, and return what it shows."""
    ours, theirs = open_terminal()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(
        [*place.command, *place.options, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        cwd=place.root,
        env=clean_environment(place.home, **{"TERM": "xterm", "NO_COLOR": "", **(env or {})}),
    ) as process:
        os.close(theirs)
        shown = b""
        while chunk := _read(ours):
            shown += chunk
        process.wait(DEADLINE_S)
    os.close(ours)
    return shown.decode().replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other side is closed
        return b""


def widest(text: str) -> int:
    return max(len(COLOUR.sub("", line)) for line in text.splitlines())


@pytest.mark.parametrize("columns", [80, 120])
def test_help_and_sentences_use_the_width_that_is_there(place: Place, columns: int) -> None:
    help_ = on_a_terminal(place, "db", "migrate", "--help", columns=columns)
    assert columns - 25 < widest(help_) <= columns
    place.folder.add("a", "CREATE TABLE a(x); " + "x" * 60 + ";")
    failure = on_a_terminal(place, "db", "migrate", columns=columns)
    assert columns - 25 < widest(failure) <= columns


def test_a_wider_terminal_makes_no_longer_lines(place: Place) -> None:
    assert widest(on_a_terminal(place, "db", "migrate", "--help", columns=300)) <= 120


@pytest.mark.parametrize("columns", [80, 120])
def test_rows_of_a_table_stay_on_one_line(place: Place, columns: int) -> None:
    for number in range(3):
        place.folder.add(f"{'long_name_' * 6}{number}", f"CREATE TABLE t{number}(x);")
    assert place.migrate().code == 0
    shown = on_a_terminal(place, "db", "status", columns=columns)
    rows = [line for line in shown.splitlines() if "long_name_" in line]
    assert len(rows) == 3
    assert all(len(COLOUR.sub("", row)) <= columns for row in rows)
    assert ("…" in rows[0]) == (columns == 80)
    whole = place.run("db", "status").stdout
    assert f"{'long_name_' * 6}0" in whole


@pytest.mark.parametrize(
    ("env", "coloured"), [({}, True), ({"TERM": "dumb"}, False), ({"NO_COLOR": "1"}, False)]
)
def test_colours_are_left_out_where_the_terminal_or_the_person_has_none(
    place: Place, env: dict[str, str], coloured: bool
) -> None:
    shown = on_a_terminal(place, "db", "check", columns=80, env=env)
    assert bool(COLOUR.search(shown)) is coloured
