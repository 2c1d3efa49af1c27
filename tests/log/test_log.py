"""The log as a program reads it: JSON lines, levels, redaction, journal entries, threads."""

from __future__ import annotations

import ast
import fcntl
import io
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.log import configure, ignore, render, tee
from local_mcp_gateway.log.console import as_word
from local_mcp_gateway.log.events import EVENTS, LEVELS
from local_mcp_gateway.log.file import RotatedFile
from local_mcp_gateway.log.journal import Journal, as_datagram, is_journal
from local_mcp_gateway.log.outputs import Entries
from local_mcp_gateway.log.redact import HIDDEN, is_secret_key, redact, redact_text
from local_mcp_gateway.log.unblocked import Unblocked
from local_mcp_gateway.service.diary.history import parse_entry
from tests.harness import DEADLINE_S, Place, clean_environment

PACKAGE = Path(__file__).parents[2] / "daemon" / "local_mcp_gateway"


def lines_of(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_json_line_with_time_level_and_name_first() -> None:
    stream = io.StringIO()
    configure("json", "info", stream)("guard.ready", state="current", durations_ms={"probe": 1.25})
    (line,) = lines_of(stream)
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", str(line["timestamp"]))
    assert line["event"] == "guard.ready"
    assert line["level"] == "info"
    assert line["durations_ms"] == {"probe": 1.25}


def test_text_with_line_breaks_and_odd_values_stays_one_valid_line() -> None:
    stream = io.StringIO()
    configure("json", "info", stream)(
        "guard.refused", message="a\nb \u2028 é", path=Path("/x"), odd=object()
    )
    (line,) = lines_of(stream)
    assert line["message"] == "a\nb \u2028 é"
    assert line["path"] == "/x"


def test_events_below_the_level_are_not_written() -> None:
    stream = io.StringIO()
    emit = configure("json", "warning", stream)
    emit("guard.ready")
    emit("upstream.lost", server="time")
    assert [line["event"] for line in lines_of(stream)] == ["upstream.lost"]


def test_an_event_that_the_table_lacks_is_shown_all_the_same() -> None:
    stream = io.StringIO()
    configure("json", "info", stream)("something.unforeseen")
    assert lines_of(stream)[0]["level"] == "info"


def test_a_stream_that_is_no_terminal_gets_json_when_the_format_is_auto(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    stream = io.StringIO()
    configure("auto", "info", stream)("guard.ready")
    assert lines_of(stream)


def test_the_console_shows_a_line_that_a_person_can_read() -> None:
    stream = io.StringIO()
    configure("console", "info", stream)("backup.created", path="/a b.db", bytes=12)
    assert re.fullmatch(
        r'\d\d:\d\d:\d\d\.\d{3}   backup\.created +path="/a b\.db" bytes=12\n', stream.getvalue()
    )


def test_a_console_line_fits_a_hundred_columns_and_loses_nothing() -> None:
    stream = io.StringIO()
    fields = {f"phase_{number}_ms": number * 1.5 for number in range(20)}
    configure("console", "info", stream)("guard.ready", hash="ab" * 32, gone=None, **fields)
    lines = stream.getvalue().splitlines()
    assert all(len(line) <= 100 for line in lines)
    assert all(line.startswith("    ") for line in lines[1:])
    text = stream.getvalue()
    assert all(f"{key}={value:g}" in text for key, value in fields.items())
    assert "hash=abababababab…" in text
    assert "gone" not in text


def test_one_use_of_an_event_may_be_quieter_than_the_table_says() -> None:
    stream = io.StringIO()
    emit = configure("json", "info", stream)
    emit("guard.ready", _level="debug")
    emit("guard.ready", _level="warning")
    assert [line["level"] for line in lines_of(stream)] == ["warning"]
    assert "_level" not in lines_of(stream)[0]


def test_secrets_never_reach_the_line() -> None:
    stream = io.StringIO()
    configure("json", "info", stream)(
        "upstream.lost",
        headers={"Authorization": "Bearer abcdef", "X-Trace": "1"},
        reason="GET http://me:pw@host/?api_key=k1&x=1 failed: Bearer abcdefgh; TOKEN=abc",
        command=["npx", "--api-key", "--github-token=ghx"],
    )
    (line,) = lines_of(stream)
    assert line["headers"] == {"Authorization": HIDDEN, "X-Trace": "1"}
    text = stream.getvalue()
    for secret in ("abcdef", "me:pw", "k1", "abc", "ghx"):
        assert secret not in text
    assert "x=1" in text


@given(
    st.sampled_from(["ghp_", "github_pat_", "sk-", "sk-ant-", "xoxb-", "glpat-"]),
    st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=20, max_size=40),
    st.text(max_size=20),
)
def test_a_token_is_hidden_wherever_it_stands(prefix: str, body: str, around: str) -> None:
    assert body not in redact_text(f"{around} {prefix}{body} {around}") or body in around


@pytest.mark.parametrize(
    "part",
    ["a-", "-", "a--", "token", "--token", "eyJ-", "eyJaaaaaaaaaaaa-", "sk-", "://a:", "basic "],
)
def test_a_long_line_of_a_server_is_looked_through_once(part: str) -> None:
    """The interpreter's lock is held meanwhile: what grew with the square stopped every call."""
    code = (
        "import sys; from local_mcp_gateway.log.redact import redact_text; redact_text(sys.argv[1])"
    )
    line = part * (100_000 // len(part))
    subprocess.run([sys.executable, "-c", code, line], check=True, timeout=DEADLINE_S)


@pytest.mark.parametrize(
    "text",
    [
        "x--token S3CRETS",
        "--my-api-key-2 S3CRETS",
        "MY_TOKEN_FOR_ME=S3CRETS",
        "-token: S3CRETS",
        "run--eyJhbGciOi01.eyJzdWIiOi02.S3CRETS",
        "eyJhbGciOi01.eyJzdWIiOi02.S3CRETS",
    ],
)
def test_a_name_is_found_wherever_it_begins(text: str) -> None:
    assert "S3CRETS" not in redact_text(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
        ),
    )
)
def test_redaction_keeps_the_shape_of_what_it_is_given(value: object) -> None:
    assert json.dumps(redact(redact(value))) == json.dumps(redact(value))


@pytest.mark.parametrize(
    "key",
    [
        "token",
        "access_token",
        "Authorization",
        "client_secret",
        "API-KEY",
        "db_password",
        "Set-Cookie",
        "refreshToken",
    ],
)
def test_a_field_named_like_a_secret_is_hidden(key: str) -> None:
    assert is_secret_key(key)


@pytest.mark.parametrize(
    "key", ["path", "tag", "tokens_found", "duration_ms", "author", "keys", "bytes", "progress"]
)
def test_a_field_with_a_harmless_name_is_shown(key: str) -> None:
    assert not is_secret_key(key)


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


def test_tee_reports_to_every_target_in_order() -> None:
    seen: list[tuple[str, str]] = []
    both = tee(
        lambda event, **_: seen.append(("a", event)),
        ignore,
        lambda event, **_: seen.append(("b", event)),
    )
    both("guard.ready")
    assert seen == [("a", "guard.ready"), ("b", "guard.ready")]


def test_a_journal_entry_carries_every_field_and_the_migration_by_name() -> None:
    entry = as_datagram(
        "text", "warning", "migration.applied", {"tag": "0003_x", "duration_ms": 1.5, "sql": "a\nb"}
    )
    assert (
        b"MESSAGE=text\nPRIORITY=4\nSYSLOG_IDENTIFIER=local-mcp-gateway\nEVENT=migration.applied\n"
        in entry
    )
    assert b"MIGRATION=0003_x\n" in entry
    assert b"DURATION_MS=1.5\n" in entry
    assert b"SQL\n\x03\0\0\0\0\0\0\0a\nb\n" in entry


def test_calls_have_a_priority_of_their_own_in_the_journal_and_not_for_who_reads_it() -> None:
    """The journal's rate limit counts by priority: calls shall not use up what a migration needs."""
    call = as_datagram("text", "info", "call.finished", {})
    other = as_datagram("text", "info", "migration.applied", {})
    assert b"\nPRIORITY=7\n" in call
    assert b"\nPRIORITY=6\n" in other
    entry = {"EVENT": "call.finished", "PRIORITY": "7", "__REALTIME_TIMESTAMP": "1"}
    _, line = parse_entry(json.dumps(entry))
    assert line is not None
    assert line.level == "info"


def test_an_entry_is_read_with_its_fields_in_the_order_in_which_they_were_told() -> None:
    told = {"tag": "0003_x", "statements": 2, "message": "a sentence", "duration_ms": 1.5}
    text = " ".join(["migration.applied", *(f"{key}={value}" for key, value in told.items())])
    datagram = as_datagram(text, "info", "migration.applied", told)
    pairs = [line.partition("=")[::2] for line in datagram.decode().splitlines()]
    for entry in (dict(pairs), dict(sorted(pairs)), dict(reversed(pairs))):
        _, line = parse_entry(json.dumps({**entry, "__REALTIME_TIMESTAMP": "1"}))
        assert line is not None
        assert list(line.fields.items()) == list(told.items())


def test_a_batch_of_entries_reaches_a_journal_that_is_slower_than_we(tmp_path: Path) -> None:
    path = str(tmp_path / "j")
    entries = [b"MESSAGE=%d\n" % number for number in range(1_000)]
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver,
        closing(Journal(path, patience_s=DEADLINE_S)) as journal,
    ):
        receiver.bind(path)
        sender = threading.Thread(target=lambda: [journal.send(entry) for entry in entries])
        sender.start()
        received = []
        for _ in entries:
            time.sleep(0.0002)  # what the journal does with an entry
            received.append(receiver.recv(100))
        sender.join()
    assert received == entries


def test_a_journal_that_takes_nothing_is_waited_for_once_and_used_again_when_it_does(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "j")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver,
        closing(Journal(path, patience_s=0.05)) as journal,
    ):
        assert journal.send(b"MESSAGE=x\n") is False
        receiver.bind(path)
        assert journal.send(b"MESSAGE=x\n")
        assert receiver.recv(100) == b"MESSAGE=x\n"
        while journal.send(b"MESSAGE=full\n"):
            pass
        assert not any(journal.send(b"MESSAGE=full\n") for _ in range(10_000))
        receiver.recv(100)
        assert journal.send(b"MESSAGE=x\n")


def test_an_entry_too_large_for_a_datagram_travels_as_a_descriptor(tmp_path: Path) -> None:
    path = str(tmp_path / "j")
    entry = b"MESSAGE=" + b"x" * 2_000_000 + b"\n"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver,
        closing(Journal(path)) as journal,
    ):
        receiver.bind(path)
        assert journal.send(entry)
        _, descriptors, *_ = socket.recv_fds(receiver, 1, 1)
        # Of anybody but root the journal takes nothing that could still be changed.
        assert fcntl.fcntl(descriptors[0], fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE
        with os.fdopen(descriptors[0], "rb") as memory:
            memory.seek(0)
            assert memory.read() == entry


def test_what_a_journal_missed_is_told_in_it_once_and_when_it_takes_entries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "j")
    with (
        closing(Journal(path)) as journal,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver,
    ):
        monkeypatch.setattr(render, "Journal", lambda: journal)
        unblocked = Unblocked(configure("journal", "info", io.StringIO()))
        for number in range(3):
            unblocked.start()
            unblocked("call.finished", n=number)
            unblocked.stop()
        assert capfd.readouterr().err == ""
        receiver.bind(path)
        unblocked.start()
        unblocked("guard.ready")
        unblocked.stop()
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
        entries = Entries(journal)
        told = 0
        while not (lost := entries.take_lost()):
            entries.warning("x" * 99, b"MESSAGE=x\n")
            told += 1
        assert lost == 1
        reading.shutdown(socket.SHUT_WR)
        writing.shutdown(socket.SHUT_WR)
        with reading.makefile() as lines:
            assert len(lines.readlines()) == told - 1
        entries.warning("gone", b"MESSAGE=gone\n")
        assert entries.take_lost() == 1


def test_the_journal_is_known_by_the_identity_of_stderr_not_by_the_variable_alone() -> None:
    with Path(os.devnull).open() as stream:
        status = os.fstat(stream.fileno())
        assert is_journal(stream, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        assert not is_journal(stream, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino + 1}"})
        assert not is_journal(stream, {})


def test_importing_the_log_loads_no_renderer_and_rendering_loads_no_rich() -> None:
    script = (
        "import sys; from local_mcp_gateway.log import configure; emit = configure('json', 'info');"
        "assert 'structlog' not in sys.modules; emit('guard.ready');"
        "assert 'structlog' in sys.modules and 'rich' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_the_table_holds_every_event_that_the_code_emits_and_no_other() -> None:
    emitted: dict[str, str] = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        for event in events_emitted_by(ast.parse(file.read_text(encoding="utf-8"))):
            emitted.setdefault(event, str(file.relative_to(PACKAGE)))
    assert {event: file for event, file in emitted.items() if event not in EVENTS} == {}
    assert EVENTS.keys() - emitted.keys() == set()


def events_emitted_by(module: ast.Module) -> Iterator[str]:
    """Yield every event that the module passes to an Emit, whatever the Emit is called there.

    A name holds an Emit if it is `emit` or `_emit`, or if such a name, or a `Log`, is assigned to it.
    A forwarder passes on the parameter `event`; any other event must be readable here.
    """
    emitters = {"emit", "_emit"} | {
        target.attr
        for node in ast.walk(module)
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Name)
        and node.value.id in {"emit", "log"}
        for target in node.targets
        if isinstance(target, ast.Attribute)
    }
    for node in ast.walk(module):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        if name not in emitters:
            continue
        event = node.args[0]
        if isinstance(event, ast.Name) and event.id == "event":
            continue
        for choice in (event.body, event.orelse) if isinstance(event, ast.IfExp) else (event,):
            assert isinstance(choice, ast.Constant), ast.unparse(node)
            yield str(choice.value)


def test_an_event_is_named_noun_past_verb_and_has_a_level_and_a_sentence() -> None:
    for name, event in EVENTS.items():
        assert re.fullmatch(r"[a-z]+\.[a-z_]+", name)
        assert event.level in LEVELS
        assert event.sentence.endswith(".")


def test_a_reader_that_does_not_read_never_blocks_who_reports() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        unblocked = Unblocked(configure("json", "info", stream), most_waiting=100)
        unblocked.start()
        for number in range(5_000):
            unblocked("call.finished", n=number, text="x" * 200)
        with os.fdopen(reading, encoding="utf-8") as reader:
            lines: list[dict[str, object]] = []
            thread = threading.Thread(target=lambda: lines.extend(map(json.loads, reader)))
            thread.start()
            unblocked.stop()
            unblocked("service.stopped")
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
                unblocked("call.finished", n=told)
            return super().write(text)

    stream = Talkative()
    unblocked = Unblocked(configure("json", "info", stream))
    unblocked.start()
    unblocked("call.finished", n=1)
    unblocked.stop()
    assert [line["n"] for line in lines_of(stream)] == list(range(1, told + 1))


def test_an_event_that_cannot_be_rendered_costs_itself_only() -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError

    stream = io.StringIO()
    unblocked = Unblocked(configure("json", "info", stream))
    unblocked.start()
    unblocked("call.finished", n=Broken())
    unblocked("call.finished", n=1)
    unblocked.stop()
    told = [(line["event"], line.get("n", line.get("count"))) for line in lines_of(stream)]
    assert told == [("call.finished", 1), ("log.dropped", 1)]


def test_an_event_that_waited_is_shown_with_the_time_when_it_happened() -> None:
    stream = io.StringIO()
    configure("json", "info", stream)("guard.ready", _at=1_800_000_000.25)
    assert lines_of(stream)[0]["timestamp"] == "2027-01-15T08:00:00.250000Z"
    assert "_at" not in lines_of(stream)[0]


def test_a_log_file_is_rotated_and_holds_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "x.log.jsonl"
    log = configure("json", "info", RotatedFile(path, most_bytes=1000))
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
    configure("json", "info", RotatedFile(tmp_path / "nowhere" / "x.log.jsonl"))("guard.ready")


def test_a_line_that_a_full_disk_has_cut_off_spoils_no_other(tmp_path: Path) -> None:
    """Lines come in batches: of the one that did not fit, some are there."""
    path = tmp_path / "x.log.jsonl"
    code = """
import resource, sys
from pathlib import Path
from local_mcp_gateway.log.file import RotatedFile
file = RotatedFile(Path(sys.argv[1]))
for limit in 25, 25, resource.RLIM_INFINITY:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        file.write('{"n": 1}\\n{"n": 2}\\n{"n": 3}\\n')
    except OSError:
        print("full")
"""
    command = [sys.executable, "-c", code, str(path)]
    assert subprocess.check_output(command, text=True) == "full\n" * 2
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
from local_mcp_gateway.log import configure
from local_mcp_gateway.log.file import RotatedFile
from local_mcp_gateway.log.unblocked import Unblocked
unblocked = Unblocked(configure("json", "info", RotatedFile(Path(sys.argv[1]))))
for turn, limit in enumerate((1_000, 1_000, resource.RLIM_INFINITY)):
    unblocked.start()
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    for number in range(100):
        unblocked("call.finished", n=turn * 100 + number)
    unblocked.stop()
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


def test_a_list_that_is_longer_than_a_line_shows_its_ends() -> None:
    tags = [f"{number:04d}_a_migration" for number in range(30)]
    assert as_word(tags, "/home/a") == "0000_a_migration,…(+28),0029_a_migration"
    assert as_word(tags[:3], "/home/a") == ",".join(tags[:3])
