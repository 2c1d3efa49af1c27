"""How a unit of work reports what it is at, and that it should stop."""

from __future__ import annotations

import threading

import pytest

from local_mcp_gateway.database.run import (
    Phases,
    Run,
    describe_progress,
    progress_line,
    read_progress,
)
from local_mcp_gateway.errors import Interrupted


@pytest.mark.parametrize(
    ("progress", "told"),
    [
        (("check", 0, 0), ("checking the database", None)),
        (("backup", 1 << 20, 4 << 20), ("backing up 4.0 MiB", 25)),
        (("read", 3 << 30, 3 << 30), ("reading back 3.0 GiB", 100)),
        (("flush", 0, 0), ("flushing to the disk", None)),
        (("rehearse 0001_a", 0, 1), ("rehearsing 0001_a", None)),
        (("apply 0002_b", 1, 3), ("applying 0002_b, 2 of 3", None)),
        (("durable", 0, 0), ("committing and checking the result", None)),
        (("else", 0, 0), ("else", None)),
    ],
)
def test_a_phase_is_told_in_words_and_with_its_share_where_that_is_known(
    progress: tuple[str, int, int], told: tuple[str, int | None]
) -> None:
    assert describe_progress(*progress) == told


@pytest.mark.parametrize("phase", ["backup", "apply 0002_b", "rehearse a tag of words"])
def test_progress_that_is_told_in_a_line_is_read_back(phase: str) -> None:
    assert read_progress(progress_line(phase, 3, 40).rstrip("\n")) == (phase, 3, 40)


@pytest.mark.parametrize("line", ["", "progress: ", "progress: 1", "progress: x 2 y", "done 1 2 x"])
def test_a_line_of_another_kind_is_no_progress(line: str) -> None:
    assert read_progress(line) is None


def test_a_phase_that_is_resumed_counts_on() -> None:
    phases = Phases()
    for name in ("probe", "read", "probe"):
        phases.begin(name)
    spent = phases.durations_ms
    assert list(spent) == ["probe", "read"]
    assert phases.durations_ms["probe"] >= spent["probe"]
    assert phases.durations_ms["read"] == spent["read"]


def test_work_that_was_asked_to_stop_says_where_it_stopped() -> None:
    stop = threading.Event()
    run = Run(stop=stop)
    run.checkpoint()
    stop.set()
    assert run.stopped
    with pytest.raises(Interrupted, match="before the backup"):
        run.checkpoint("before the backup")
