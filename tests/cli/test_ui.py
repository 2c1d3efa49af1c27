"""What a person sees on a terminal of 80 and of 120 columns: the program runs on a real one."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from local_mcp_gateway.cli.ui import indented_json
from tests.harness import DEADLINE_S, Place, clean_environment, new_place
from tests.needs import open_terminal

COLOUR = re.compile(r"\x1b\[\d*m")


GOLDEN = Path(__file__).parent / "golden"


@contextmanager
def terminal_with(
    place: Place,
    *arguments: str,
    columns: int,
    env: Mapping[str, str] | None = None,
    asks: bool = False,
) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run a command whose stdout and stderr are a terminal of this width, stdin if it `asks`; yield our side."""
    ours, theirs = open_terminal()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(
        [*place.command, *place.options, *arguments],
        stdin=theirs if asks else subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        cwd=place.root,
        env=clean_environment(place.home, **{"TERM": "xterm", "NO_COLOR": "", **(env or {})}),
    ) as process:
        os.close(theirs)
        yield ours, process
        process.wait(DEADLINE_S)
    os.close(ours)


def on_a_terminal(
    place: Place, *arguments: str, columns: int, env: Mapping[str, str] | None = None
) -> str:
    """Run a command to its end on a terminal of this width, and return what it shows."""
    shown = b""
    with terminal_with(place, *arguments, columns=columns, env=env) as (terminal, _):
        while chunk := _read(terminal):
            shown += chunk
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


SCREENS = (
    ("server", "list"),
    ("profile", "list"),
    ("profile", "edit", "--help"),
    ("statsu",),
    ("db", "status", "--jsn"),
)


@pytest.mark.parametrize("columns", [80, 120])
def test_the_screens_look_as_they_were_approved(shipped: Place, columns: int) -> None:
    """`python -m tests.cli.test_ui` writes the approved ones again, to be read before they are kept."""
    approved = (GOLDEN / f"{columns}.txt").read_text()
    assert screens(shipped, columns) == approved


def screens(place: Place, columns: int) -> str:
    """Return what commands show of a few servers; nothing in it depends on this machine."""
    place = replace(place, command=(str(Path(sys.executable).with_name("local-mcp-gateway")),))
    place.run("server", "add", "clock", "--profile", "everything", "--", "uvx", "mcp-server-time")
    command = (
        "npx",
        "-y",
        "@modelcontextprotocol/server-filesystem",
        "/srv/documents",
        "/srv/pictures",
    )
    place.run("server", "add", "files-of-the-office", "--profile", "everything", "--", *command)
    place.run(
        "server", "add", "issues", "--url", "https://mcp.example.com/a/rather/long/path/to/mcp"
    )
    shown = []
    for words in SCREENS:
        screen = on_a_terminal(place, *words, columns=columns, env={"NO_COLOR": "1"})
        shown.append(f"$ local-mcp-gateway {' '.join(words)}\n{screen}")
    return "\n".join(shown)


@pytest.mark.parametrize("command", [["db", "status"], ["server", "list"]])
def test_what_is_watched_is_shown_again_until_ctrl_c(shipped: Place, command: list[str]) -> None:
    shipped.migrate()
    with terminal_with(shipped, *command, "--watch", columns=80) as (terminal, process):
        shown = b""
        while shown.count(b"\x1b[2J") < 3:
            shown += _read(terminal)
        process.send_signal(signal.SIGINT)
        while chunk := _read(terminal):
            shown += chunk
        assert process.wait(DEADLINE_S) == 0
    frames = shown.decode().split("\x1b[2J")[1:]
    assert len(set(frames[:2])) == 1
    assert "Traceback" not in shown.decode()


def test_long_work_shows_its_phase_and_the_time_that_goes_on(place: Place) -> None:
    """The migration calls a function that waits until the test opens a pipe: twice, as it is rehearsed."""
    (place.root / "gatekeeper.py").write_text(
        "def wait(path):\n    with open(path) as gate:\n        return len(gate.read())\n"
    )
    gate = place.root / "gate"
    os.mkfifo(gate)
    config = place.root / "gateway.toml"
    config.write_text('[migrations.functions]\nwait = "gatekeeper:wait"\n')
    place.folder.add("one", "CREATE TABLE t (n INTEGER)")
    place.migrate()
    tag = place.folder.add("slow", f"INSERT INTO t SELECT wait('{gate}')")
    arguments = ("--config", str(config), "db", "migrate")
    env = {"PYTHONPATH": str(place.root)}
    with terminal_with(place, *arguments, columns=80, env=env) as (terminal, process):
        shown = b""
        for words in (f"rehearsing {tag}", f"applying {tag}"):
            while len(set(re.findall(rf"\[ *# *\] {words}, ([^\r ]+ m?s)", shown.decode()))) < 2:
                shown += _read(terminal)  # the second picture of the same phase has another time
            gate.write_text("")
        while chunk := _read(terminal):
            shown += chunk
        assert process.wait(DEADLINE_S) == 0
    pictures = shown.decode().split("\r")
    assert all(len(picture) <= 80 for picture in pictures if picture.startswith("["))
    assert "applied" in shown.decode()


def test_a_row_of_the_audit_has_its_whole_time_on_a_narrow_terminal(shipped: Place) -> None:
    assert shipped.run("token", "create", "a-client-with-a-name-of-some-length").code == 0
    row = on_a_terminal(shipped, "audit", columns=80).splitlines()[-1]
    assert re.match(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d  command  token.create  a-client", row)
    shipped.run("profile", "add", "a-profile-with-a-name-of-some-length", "no-such-server-anywhere")
    row = on_a_terminal(shipped, "audit", columns=80).splitlines()[-1]
    assert re.match(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d  ", row)
    assert len(row) <= 80


def test_what_is_watched_needs_a_terminal(place: Place) -> None:
    done = place.run("db", "status", "--watch")
    assert done.code == 2
    assert "--watch redraws a terminal" in done.stderr


@pytest.mark.parametrize("asked_to_end", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_question_that_guarded_work_asks(
    place: Place, asked_to_end: signal.Signals
) -> None:
    tag = place.folder.add("a", "CREATE TABLE a(x)", down="DROP TABLE a")
    assert place.migrate().code == 0
    with terminal_with(place, "db", "down", columns=80, asks=True) as (terminal, process):
        shown = b""
        while b"to go on: " not in shown:
            shown += _read(terminal)
        process.send_signal(asked_to_end)
        while chunk := _read(terminal):
            shown += chunk
        assert process.wait(DEADLINE_S) == 2
    assert "Nothing was done" in shown.decode()
    assert [entry["tag"] for entry in place.run("db", "status", "--json").json()["applied"]] == [
        tag
    ]


SENTENCES = (
    ("db", "status"),
    ("db", "migrate"),
    ("db", "backup", "list"),
    ("db", "backup", "create"),
    ("db", "backup", "verify"),
    ("db", "down", "--yes"),
    ("db", "reset", "--yes"),
    ("db", "restore", "latest", "--yes"),
    ("db", "migrate", "--dry-run"),
    ("logs",),
    ("health",),
    ("doctor",),
    ("config", "set", "log.level", "debug"),
    ("server", "add", "far-away", "--no-test", "--", "command-of-a-server"),
    ("server", "show", "far-away"),
    ("profile", "use", "everything"),
    ("token", "create", "a-client"),
)


def test_no_sentence_is_wider_than_the_terminal(tmp_path: Path) -> None:
    """Only one word may be wider, such as a path: to be copied, it has to stay whole."""
    place = new_place(tmp_path / f"long-{'x' * 80}", shipped=True)
    wide: list[str] = []
    for words in SENTENCES:
        shown = on_a_terminal(place, *words, columns=80, env={"NO_COLOR": "1"})
        assert "Traceback" not in shown
        lines = shown.splitlines()
        wide += [f"{words}: {line}" for line in lines if len(line) > 80 and " " in line[80:]]
    assert not wide, "\n".join(wide)


@pytest.mark.parametrize("group", ["config", "profile", "replica", "secrets", "db", "db backup"])
def test_the_help_of_a_group_cuts_no_sentence(place: Place, group: str) -> None:
    shown = on_a_terminal(place, *group.split(), "--help", columns=80)
    assert "..." not in shown.partition("Commands:")[2]
    assert widest(shown) <= 80


def main() -> None:
    """Write the approved screens again."""
    for columns in (80, 120):
        with tempfile.TemporaryDirectory() as folder:
            place = new_place(Path(folder), shipped=True)
            GOLDEN.mkdir(exist_ok=True)
            (GOLDEN / f"{columns}.txt").write_text(screens(place, columns))


if __name__ == "__main__":
    main()


_PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@given(
    st.recursive(
        _PLAIN,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    )
)
@example(
    {"applied": [{"tag": "a", "when": 1}, {}], "backups": [], "lock": {"held": False}, "é": "\n"}
)
def test_json_is_indented_as_the_standard_library_does_it(value: object) -> None:
    assert indented_json(value) == json.dumps(value, indent=2, ensure_ascii=False)


def test_what_a_new_server_offers_is_told_in_whole_lines(shipped: Place) -> None:
    text = on_a_terminal(
        shipped, "server", "add", "clock", "--", sys.executable, "-m", "mcp_server_time", columns=60
    )
    assert "clock works: " in text
    assert widest(text) <= 60, text
