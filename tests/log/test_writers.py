"""Where events go: no line is torn or lost unnoticed, and nobody waits for a slow reader."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import closing, suppress
from pathlib import Path

import pytest

from local_mcp_gateway.log import (
    BackgroundWriter,
    Log,
    configure,
    ignore,
    log_to_file,
    tee,
)
from local_mcp_gateway.log.formatters import formatter
from local_mcp_gateway.log.journal import Journal, JournalEntry
from local_mcp_gateway.log.redact import HIDDEN
from local_mcp_gateway.log.writers import JournalWriter
from tests.harness import Place, clean_environment


def lines_of(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_events_below_the_level_are_not_written() -> None:
    stream = io.StringIO()
    emit = configure("json", "warning", stream)
    emit("guard.ready")
    emit("upstream.lost", server="time")
    assert [line["event"] for line in lines_of(stream)] == ["upstream.lost"]


def test_tee_reports_to_every_target_in_order() -> None:
    seen: list[tuple[str, str]] = []
    both = tee(
        lambda event, **_: seen.append(("a", event)),
        ignore,
        lambda event, **_: seen.append(("b", event)),
    )
    both("guard.ready")
    assert seen == [("a", "guard.ready"), ("b", "guard.ready")]
    tee(lambda event, **_: seen.append(("c", event)), both)("guard.locked")
    assert seen[2:] == [("c", "guard.locked"), ("a", "guard.locked"), ("b", "guard.locked")]


def test_importing_the_log_loads_no_renderer_and_rendering_loads_no_rich() -> None:
    script = (
        "import sys; from local_mcp_gateway.log import configure; emit = configure('json', 'info');"
        "assert 'structlog' not in sys.modules; emit('guard.ready');"
        "assert 'structlog' in sys.modules and 'rich' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_lines_of_many_threads_never_mix() -> None:
    stream = io.StringIO()
    emit = configure("json", "info", stream)

    def report(n: int) -> None:
        for _ in range(50):
            emit("call.finished", n=n, text="x" * 200)

    threads = [threading.Thread(target=report, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines_of(stream)) == 400


def test_a_reader_that_has_gone_does_not_end_the_process() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", closefd=True) as stream:
        configure("json", "info", stream)("guard.ready")
        # What the pipe did not take is still in the buffer; the close below must not report it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), writing)


def test_a_log_on_a_full_disk_does_not_end_the_process(place: Place) -> None:
    place.folder.add("notes", "CREATE TABLE notes (id INTEGER PRIMARY KEY)")
    command = [*place.command, *place.options, "--log-level", "info", "db", "migrate"]
    with Path("/dev/full").open("w") as full:
        code = subprocess.call(command, stderr=full, env=clean_environment(place.home))
    assert code == 0
    assert place.query("SELECT count(*) FROM notes") == [(0,)]


def test_what_cannot_be_said_is_still_in_the_exit_code(place: Place) -> None:
    place.folder.add("bad", "CREATE TABLE")
    command = [*place.command, *place.options, "db", "migrate"]
    with Path("/dev/full").open("w") as full:
        code = subprocess.call(command, stderr=full, env=clean_environment(place.home))
    assert code == 5


def test_what_a_journal_missed_is_told_in_it_once_and_when_it_takes_entries_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "j")
    with (
        closing(Journal(path)) as journal,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver,
    ):
        background = BackgroundWriter(
            Log("info", lambda: (formatter("journal"), JournalWriter(journal)))
        )
        for number in range(3):
            background.start()
            background("call.finished", n=number)
            background.stop()
        assert capfd.readouterr().err == ""
        receiver.bind(path)
        background.start()
        background("guard.ready")
        background.stop()
        receiver.setblocking(False)
        assert b"EVENT=guard.ready\n" in receiver.recv(1000)
        dropped = receiver.recv(1000)
        assert b"EVENT=log.dropped\n" in dropped
        assert b"COUNT=3\n" in dropped


def test_a_warning_that_nobody_takes_waits_for_nobody_and_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under systemd stderr leads to the journal as well: one that is stopped fills it up."""
    reading, writing = socket.socketpair()
    with (
        reading,
        writing,
        writing.makefile("w") as stderr,
        closing(Journal(str(tmp_path / "j"))) as journal,
    ):
        monkeypatch.setattr(sys, "stderr", stderr)
        writer = JournalWriter(journal)
        told = 1
        while writer.write([JournalEntry("x" * 99, urgent=True, datagram=b"MESSAGE=x\n")]) == 0:
            told += 1
        reading.shutdown(socket.SHUT_WR)
        writing.shutdown(socket.SHUT_WR)
        with reading.makefile() as lines:
            assert len(lines.readlines()) == told - 1
        assert writer.write([JournalEntry("gone", urgent=True, datagram=b"MESSAGE=gone\n")]) == 1


def test_a_reader_that_does_not_read_never_blocks_who_reports() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        background = BackgroundWriter(configure("json", "info", stream), most_waiting=100)
        background.start()
        for number in range(5_000):
            background("call.finished", n=number, text="x" * 200)
        with os.fdopen(reading, encoding="utf-8") as reader:
            lines: list[dict[str, object]] = []
            thread = threading.Thread(target=lambda: lines.extend(map(json.loads, reader)))
            thread.start()
            background.stop()
            background("service.stopped")
            stream.close()
            thread.join()
    kept = [int(str(line["n"])) for line in lines if line["event"] == "call.finished"]
    dropped = [int(str(line["count"])) for line in lines if line["event"] == "log.dropped"]
    assert kept == sorted(kept)
    assert dropped
    assert len(kept) + sum(dropped) == 5_000
    assert lines[-1]["event"] == "service.stopped"


def test_what_is_told_while_the_thread_ends_is_written_too() -> None:
    told = 1

    class Talkative(io.StringIO):
        """Something is told whenever the thread writes, also the last time."""

        def write(self, text: str) -> int:
            nonlocal told
            if threading.current_thread().name == "log":
                told += 1
                background("call.finished", n=told)
            return super().write(text)

    stream = Talkative()
    background = BackgroundWriter(configure("json", "info", stream))
    background.start()
    background("call.finished", n=1)
    background.stop()
    assert [line["n"] for line in lines_of(stream)] == list(range(1, told + 1))


def test_an_event_that_cannot_be_rendered_costs_itself_only() -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError

    stream = io.StringIO()
    background = BackgroundWriter(configure("json", "info", stream))
    background.start()
    background("call.finished", n=Broken())
    background("call.finished", n=1)
    background.stop()
    told = [(line["event"], line.get("n", line.get("count"))) for line in lines_of(stream)]
    assert told == [("call.finished", 1), ("log.dropped", 1)]


def test_a_log_file_is_rotated_and_holds_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "x.log.jsonl"
    log = log_to_file(path, "info", most_bytes=1000)
    for number in range(30):
        log("call.finished", n=number, token="abc")
    log("control.answered", verb="below the level")
    kept = [
        json.loads(line)
        for part in ("x.log.jsonl.1", "x.log.jsonl")
        for line in (tmp_path / part).read_text().splitlines()
    ]
    assert [line["n"] for line in kept] == list(range(kept[0]["n"], 30))
    assert {line["token"] for line in kept} == {HIDDEN}
    assert path.stat().st_size < 1200


def test_a_log_file_on_a_disk_that_refuses_is_no_error(tmp_path: Path) -> None:
    log_to_file(tmp_path / "nowhere" / "x.log.jsonl", "info")("guard.ready")


def test_a_line_that_a_full_disk_has_cut_off_spoils_no_other(tmp_path: Path) -> None:
    """Lines come in batches: of the one that did not fit, some are there."""
    path = tmp_path / "x.log.jsonl"
    code = """
import resource, sys
from pathlib import Path
from local_mcp_gateway.log.writers import RotatedFile
file = RotatedFile(Path(sys.argv[1]), most_bytes=1_000)
for limit in 25, 25, resource.RLIM_INFINITY:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    print(file.write(['{"n": 1}', '{"n": 2}', '{"n": 3}']))
"""
    command = [sys.executable, "-c", code, str(path)]
    assert subprocess.check_output(command, text=True).split() == ["1", "3", "0"]
    torn, *rest = path.read_text().splitlines()[2:]
    assert torn == '{"n": 3'
    assert rest == ['{"n": 1}', '{"n": 2}', '{"n": 3}']


def test_lines_that_a_full_disk_did_not_take_are_counted_when_there_is_room_again(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.log.jsonl"
    code = """
import resource, sys
from pathlib import Path
from local_mcp_gateway.log import log_to_file
from local_mcp_gateway.log.writers import BackgroundWriter
background = BackgroundWriter(log_to_file(Path(sys.argv[1]), "info"))
for turn, limit in enumerate((1_000, 1_000, resource.RLIM_INFINITY)):
    background.start()
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    for number in range(100):
        background("call.finished", n=turn * 100 + number)
    background.stop()
"""
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    kept: list[int] = []
    dropped = 0
    for line in path.read_text().splitlines():
        with suppress(json.JSONDecodeError):  # the one that the disk has cut off
            entry = json.loads(line)
            if entry["event"] == "log.dropped":
                dropped += entry["count"]
            else:
                kept.append(entry["n"])
    assert kept[-100:] == list(range(200, 300))
    assert 0 < len(kept[:-100]) < 100
    assert len(kept) + dropped == 300


def test_two_processes_that_fill_a_log_file_rotate_it_once(tmp_path: Path) -> None:
    """One that was refused writes while the gateway does: what it does must not cost the lines before."""
    path = tmp_path / "x.log.jsonl"
    ours, other = (log_to_file(path, "info", most_bytes=2_000) for _ in range(2))
    for number in range(40):
        (ours, other)[number % 2]("call.finished", n=number)
    kept = [
        json.loads(line)["n"]
        for part in ("x.log.jsonl.1", "x.log.jsonl")
        for line in (tmp_path / part).read_text().splitlines()
    ]
    assert kept == list(range(kept[0], 40))
    assert len(kept) > 2_000 // 100
