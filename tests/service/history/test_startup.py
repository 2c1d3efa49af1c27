"""Starts as they are written down and read again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from local_mcp_gateway.log.redact import HIDDEN
from local_mcp_gateway.service.history import startup
from local_mcp_gateway.service.history.startup import (
    BAR,
    Phase,
    Start,
    StartRecord,
    phases_of,
    read_starts,
    record_path,
    start_as_json,
)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "gateway.db"


def names(start: Start) -> list[str]:
    return [event["event"] for event in start.events]


def test_without_a_record_there_is_no_start(database: Path) -> None:
    assert read_starts(database, last=1) == []


def test_a_start_holds_its_events_and_what_comes_first_of_each_server_after_it(
    database: Path,
) -> None:
    record = StartRecord(database)
    record("service.starting", version="1")
    record("guard.progressed", percent=1)
    record("service.ready")
    record("upstream.connected", server="a")
    record("upstream.connected", server="b")
    record("upstream.connected", server="a")
    record("call.finished", server="a")
    (start,) = read_starts(database, last=1)
    connected = ["upstream.connected"] * 2
    assert names(start) == ["service.starting", "service.ready", *connected]
    assert start.outcome == "ready"


def test_a_start_that_was_killed_is_unfinished_and_its_torn_line_is_passed_over(
    database: Path,
) -> None:
    StartRecord(database)("service.starting")
    with record_path(database).open("a") as file:
        file.write('{"event": "guard.lo')
    (start,) = read_starts(database, last=1)
    assert (names(start), start.outcome) == (["service.starting"], "unfinished")


def test_a_refused_start_says_why_and_hides_secrets(database: Path) -> None:
    record = StartRecord(database)
    record("service.starting", token="abc")
    record("guard.refused", code="drift", message="No.", hint="Do.", exit_code=8)
    (start,) = read_starts(database, last=1)
    assert start.outcome == "refused"
    assert start.find("service.starting")["token"] == HIDDEN
    refusal = {"code": "drift", "message": "No.", "hint": "Do.", "exit_code": 8}
    assert start_as_json(start)["refusal"] == refusal


def test_the_last_starts_are_kept_and_those_of_two_processes_apart(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(startup, "MOST_BYTES", 4_000)
    processes = iter((1, 2))
    monkeypatch.setattr(os, "getpid", lambda: next(processes))
    records = [StartRecord(database), StartRecord(database)]
    for number in range(60):
        records[number % 2]("migration.applied", tag=f"{number:04d}")
    assert sum(part.stat().st_size for part in database.parent.glob("*.starts.jsonl*")) < 9_000
    first, second = read_starts(database, last=9)
    tags = [[event["tag"] for event in start.events] for start in (first, second)]
    assert tags[0][-1:] + tags[1][-1:] in (["0058", "0059"], ["0059", "0058"])
    assert len(tags[0]) > 5


def test_a_disk_that_refuses_a_line_stops_no_start(tmp_path: Path) -> None:
    StartRecord(tmp_path / "nowhere" / "gateway.db")("service.starting")


def test_a_phase_begins_where_the_one_before_it_ended() -> None:
    events = [
        {"event": "service.starting", "ms": 40.0},
        {"event": "guard.locked", "ms": 50.0},
        {"event": "guard.locked", "ms": 55.0},
        {"event": "guard.checked", "ms": 49.0},
    ]
    assert phases_of(Start("now 1", events)) == (
        Phase("process", 0.0, 40.0),
        Phase("lock", 40.0, 10.0),
        Phase("check", 50.0, 0.0),
    )


@pytest.mark.parametrize(
    ("start_ms", "duration_ms"), [(0, 0), (0, 100), (99, 1), (100, 0), (50, 9)]
)
def test_a_bar_is_never_wider_than_its_line_and_never_invisible(
    start_ms: float, duration_ms: float
) -> None:
    bar = Phase("lock", start_ms, duration_ms).bar(100)
    assert len(bar) == BAR
    assert bar.strip()


def test_a_line_of_the_record_is_a_line_of_a_log(database: Path) -> None:
    StartRecord(database)("guard.locked", pid=1, _level="debug")
    line = json.loads(record_path(database).read_text())
    assert list(line) == ["timestamp", "level", "event", "pid", "start", "ms"]
