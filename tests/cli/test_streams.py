"""What a command prints steers no terminal; and what becomes of it when nobody can take it."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.harness import DEADLINE_S, REPOSITORY, Finished, Place, clean_environment

FULL = Path("/dev/full")


def into_full_disk(place: Place, *arguments: str) -> Finished:
    with FULL.open("w") as full:
        done = subprocess.run(
            [*place.command, *place.options, *arguments],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=DEADLINE_S,
            env=clean_environment(place.home), cwd=place.root,
        )  # fmt: skip
    return Finished(done.returncode, "", done.stderr)


@pytest.fixture
def pending(place: Place) -> Place:
    place.folder.add("notes", "CREATE TABLE notes (id INTEGER PRIMARY KEY)")
    return place


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_the_work_is_done_and_one_sentence_says_that_its_report_is_lost(
    pending: Place, form: tuple[str, ...]
) -> None:
    done = into_full_disk(pending, "db", "migrate", *form)
    assert done.code == 1
    assert done.stderr.splitlines() == [
        "The command is done, but its output could not be written: No space left on device.",
        "→ Free disk space or redirect the output; what it has changed stays changed.",
    ]
    assert pending.query("SELECT count(*) FROM notes") == [(0,)]


def test_the_codes_own_meaning_comes_first(pending: Place) -> None:
    done = into_full_disk(pending, "db", "status")
    assert done.code == 3
    assert "could not be written" in done.stderr


def test_an_error_that_should_go_to_the_full_disk_is_said_on_stderr(place: Place) -> None:
    place.folder.add("bad", "CREATE TABLE")
    done = into_full_disk(place, "db", "migrate", "--json")
    assert done.code == 5
    assert "0000_bad.sql, line 1" in done.stderr


def test_a_reader_that_has_gone_ends_no_command_midway(pending: Place) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [*pending.command, *pending.options, "db", "reset", "--yes"]
    done = subprocess.run(
        command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False,
        timeout=DEADLINE_S, env=clean_environment(pending.home), cwd=pending.root,
    )  # fmt: skip
    os.close(writing)
    assert done.returncode == 0
    assert "could not be written" not in done.stderr
    assert pending.query("SELECT count(*) FROM notes") == [(0,)]


def test_following_ends_when_its_reader_has_gone(shipped: Place) -> None:
    with shipped.serve() as gateway:
        gateway.wait_ready()
        reading, writing = os.pipe()
        with subprocess.Popen(
            [*shipped.command, *shipped.options, "logs", "--follow", "--from", "file"],
            stdout=writing, stderr=subprocess.PIPE, text=True,
            env=clean_environment(shipped.home), cwd=shipped.root,
        ) as following:  # fmt: skip
            os.close(writing)
            assert os.read(reading, 10)
            os.close(reading)
            gateway.stop()  # says something more
            try:
                _, said = following.communicate(timeout=DEADLINE_S)
            finally:
                following.kill()
        assert (following.returncode, said) == (0, "")


STEERING = "\x1b]0;PWNED\x07\x1b[8m\x9b2J\x7f\r\u202eevil\u2066"
"""A title, hidden text, an erased screen, a return to the line's beginning, and reading from the right."""
STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
COLOURS = re.compile("\x1b\\[(0|1|2|3[1-6])m")


def on_terminal(place: Place, *arguments: str, typed: str = "") -> str:
    """Return what a command writes on a terminal, on stdout and stderr, after this is typed."""
    here, there = pty.openpty()
    with os.fdopen(here, "r+b", buffering=0) as screen:
        screen.write(typed.encode())
        child = subprocess.Popen(
            [*place.command, *place.options, *arguments],
            stdin=there, stdout=there, stderr=there,
            env=clean_environment(place.home), cwd=place.root,
        )  # fmt: skip
        os.close(there)
        shown = b""
        with suppress(OSError):  # the end of a terminal
            while part := screen.read(65536):
                shown += part
        child.wait(DEADLINE_S)
    return shown.decode()


def test_nothing_out_of_files_and_databases_steers_a_terminal(shipped: Place) -> None:
    servers = {"a": {"command": f"/bin/{STEERING}cat", "args": [STEERING, "x\ny"]}}
    document = json.dumps({"mcpServers": servers})
    assert shipped.run("server", "import", "-", stdin=document).code == 0
    shipped.write("INSERT INTO __drizzle_migrations(hash, created_at) VALUES (?, 5)", STEERING)
    shipped.write("UPDATE __guard_history SET program_version = ?", STEERING)
    for command in ("server list", "server show a", "db status", "db history", "db check", "logs"):
        for form in ((), ("--json",)):
            done = shipped.run(*command.split(), *form)
            shown = on_terminal(shipped, *command.split(), *form).replace("\r\n", "\n")
            for text in (done.stdout, done.stderr, COLOURS.sub("", shown)):
                assert STEERS.search(text) is None, (command, text)
            assert shown
    listed = shipped.run("server", "list").stdout
    assert "\\u001b]0;PWNED\\u0007" in listed
    assert "x\\ny" in listed
    (known,) = shipped.run("server", "list", "--json").json()
    assert known["args"] == [STEERING, "x\ny"]


def test_an_import_shows_what_will_run_and_asks_a_person_first(shipped: Place) -> None:
    file = shipped.root / "mcp.json"
    file.write_text(
        json.dumps({"mcpServers": {"a": {"command": "/bin/cat", "args": ["-n", "x y"]}}})
    )
    given = ("server", "import", str(file))
    declined = on_terminal(shipped, *given, typed="n\n")
    assert "a  /bin/cat -n 'x y'" in declined
    assert "Nothing was done" in declined
    assert shipped.run("server", "list", "--json").json() == []
    done = shipped.run(*given)
    assert done.stdout == (
        "added  a  /bin/cat -n 'x y'\n"
        "In the profile default: `server list` tells how each is, `tools` what clients get.\n"
    )
    assert "kept   a" in on_terminal(shipped, *given, typed="y\n")
    assert "?" not in on_terminal(shipped, *given, "--yes")


def test_a_failing_statement_is_shown_without_what_steers_a_terminal(place: Place) -> None:
    place.folder.add("bad", f"CREATE TABLE t (x TEXT DEFAULT '{STEERING}') oh")
    done = place.run("db", "migrate")
    assert done.code == 5
    assert "PWNED" in done.stderr
    assert STEERS.search(done.stderr) is None


def test_what_a_program_reads_comes_as_it_is_and_a_person_sees_what_it_hides(
    shipped: Place,
) -> None:
    plain = REPOSITORY / "tests" / "gateway" / "servers" / "plain.py"
    assert shipped.run("server", "add", "plain", "--", sys.executable, plain).code == 0
    argument = f"text={STEERING}"
    hidden = json.dumps({"text": STEERING})  # the server answers with JSON, so nothing to hide
    assert shipped.run("call", "echo", argument).stdout == hidden + "\n"
    old, new = (shipped.root / name for name in ("old.sql", "new.sql"))
    old.write_text("CREATE TABLE t (id INTEGER PRIMARY KEY);")
    new.write_text(
        f"CREATE TABLE t (id INTEGER PRIMARY KEY, x TEXT DEFAULT '\u202e{STEERING[-6:]}');"
    )
    compared = ("db", "diff", "--from", str(old), "--to", str(new), "--format", "sql")
    assert "\u202e" in shipped.run(*compared).stdout
    assert "\u202e" not in on_terminal(shipped, *compared)
    assert "\\u202e" in on_terminal(shipped, *compared)
