"""What becomes of a command when nobody can take what it prints."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.harness import DEADLINE_S, Finished, Place, clean_environment

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
        "It is done, but what it printed could not be written: No space left on device.",
        "→ Free room, or let it print elsewhere; what it has changed stays changed.",
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
