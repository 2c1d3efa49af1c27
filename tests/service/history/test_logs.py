"""Lines of a file that is appended to and rotated: each is seen once."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_mcp_gateway.log import log_to_file
from local_mcp_gateway.service.history.logs import parse_line, tail
from tests.harness import DEADLINE_S


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.jsonl"


def rotated(path: Path) -> None:
    path.replace(path.with_name(path.name + ".1"))


def more(path: Path, *lines: str) -> None:
    with path.open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))


def upto_now(lines: Iterator[str | None]) -> list[str | None]:
    return list(itertools.takewhile(lambda line: line is not None, lines))


def test_the_rotated_part_comes_first(path: Path) -> None:
    more(path, "a", "b")
    rotated(path)
    more(path, "c")
    assert list(tail(path, follow=False)) == ["a", "b", "c", None]


def test_without_a_file_there_is_nothing(path: Path) -> None:
    assert list(tail(path, follow=False)) == [None]


def test_what_is_written_before_anything_watches_is_seen(path: Path) -> None:
    """The past was read, and the watcher does not stand yet: this was lost once."""
    more(path, "past")
    lines = tail(path, follow=True)
    assert upto_now(lines) == ["past"]
    more(path, "between")
    assert next(lines) == "between"


def test_what_is_written_to_the_file_after_it_was_rotated_is_seen(path: Path) -> None:
    more(path, "past")
    lines = tail(path, follow=True)
    upto_now(lines)
    with path.open("a") as straggler:
        rotated(path)
        more(path, "new file")
        assert next(lines) == "new file"
        straggler.write("straggler\n")
    assert next(lines) == "straggler"


def test_two_rotations_between_two_looks_lose_nothing(path: Path) -> None:
    more(path, "past")
    lines = tail(path, follow=True)
    upto_now(lines)
    for line in ("first", "second", "third"):
        more(path, line)
        if line != "third":
            rotated(path)
    assert [next(lines) for _ in range(3)] == ["first", "second", "third"]


def test_a_line_that_is_half_written_waits_for_its_end(path: Path) -> None:
    with path.open("a") as file:
        file.write("whole\nha")
        file.flush()
        lines = tail(path, follow=True)
        assert upto_now(lines) == ["whole"]
        file.write("lf\n")
    assert next(lines) == "half"


def test_a_burst_over_many_rotations_is_seen_whole(path: Path) -> None:
    write = log_to_file(path, "debug", most_bytes=40_000)
    write("call.finished", n=-1)
    lines = tail(path, follow=True)
    upto_now(lines)
    seen = threading.Semaphore(0)

    def burst() -> None:
        for n in range(3_000):
            if n >= 300:  # at most two files ahead of the reader
                assert seen.acquire(timeout=DEADLINE_S)
            write("call.finished", n=n)

    writer = threading.Thread(target=burst)
    writer.start()
    for n in range(3_000):
        line = next(lines)
        assert line is not None
        assert f'"n": {n}}}' in line
        seen.release()
    writer.join()


def test_a_line_that_somebody_wrote_into_the_log_is_shown_or_passed_over() -> None:
    ours = '{"timestamp": "2026-01-31T12:00:00Z", "level": "loud", "event": "guard.ready"}'
    line = parse_line(ours)
    assert line is not None
    assert (line.level, line.event, line.fields) == ("info", "guard.ready", {})
    for raw in ("", "x", "[]", "7", ours[:-9], ours.replace("2026", "two")):
        assert parse_line(raw) is None
