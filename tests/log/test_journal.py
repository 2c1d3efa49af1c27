"""The journal's native protocol: entries with fields of their own, sent and read again."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
from contextlib import closing
from pathlib import Path

from local_mcp_gateway.log.journal import Journal, as_entry, is_journal
from local_mcp_gateway.service.history.logs import parse_entry
from tests.harness import DEADLINE_S


def test_a_journal_entry_carries_every_field_and_the_migration_by_name() -> None:
    entry = as_entry(
        "text", "warning", "migration.applied", {"tag": "0003_x", "duration_ms": 1.5, "sql": "a\nb"}
    ).datagram
    assert (
        b"MESSAGE=text\nPRIORITY=4\nSYSLOG_IDENTIFIER=local-mcp-gateway\nEVENT=migration.applied\n"
        in entry
    )
    assert b"MIGRATION=0003_x\n" in entry
    assert b"DURATION_MS=1.5\n" in entry
    assert b"SQL\n\x03\0\0\0\0\0\0\0a\nb\n" in entry


def test_calls_have_a_priority_of_their_own_in_the_journal_and_not_for_who_reads_it() -> None:
    """The journal's rate limit counts by priority: calls shall not use up what a migration needs."""
    call = as_entry("text", "info", "call.finished", {}).datagram
    other = as_entry("text", "info", "migration.applied", {}).datagram
    assert b"\nPRIORITY=7\n" in call
    assert b"\nPRIORITY=6\n" in other
    entry = {"EVENT": "call.finished", "PRIORITY": "7", "__REALTIME_TIMESTAMP": "1"}
    _, line = parse_entry(json.dumps(entry))
    assert line is not None
    assert line.level == "info"


def test_an_entry_is_read_with_its_fields_in_the_order_in_which_they_were_told() -> None:
    told = {"tag": "0003_x", "statements": 2, "message": "a sentence", "duration_ms": 1.5}
    text = " ".join(["migration.applied", *(f"{key}={value}" for key, value in told.items())])
    datagram = as_entry(text, "info", "migration.applied", told).datagram
    pairs = [line.partition("=")[::2] for line in datagram.decode().splitlines()]
    for entry in (dict(pairs), dict(sorted(pairs)), dict(reversed(pairs))):
        _, line = parse_entry(json.dumps({**entry, "__REALTIME_TIMESTAMP": "1"}))
        assert line is not None
        assert list(line.fields.items()) == list(told.items())


def test_a_batch_of_entries_waits_for_a_journal_that_is_behind(tmp_path: Path) -> None:
    path = str(tmp_path / "j")
    entries = [b"MESSAGE=%d\n" % number for number in range(1_000)]
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver,
        closing(Journal(path, patience_s=DEADLINE_S)) as journal,
        closing(Journal(path, patience_s=0.05)) as another,
    ):
        receiver.settimeout(DEADLINE_S)
        receiver.bind(path)
        earlier = 0
        while another.send(b"MESSAGE=earlier\n"):
            earlier += 1
        sent: list[bool] = []
        sender = threading.Thread(target=lambda: sent.extend(map(journal.send, entries)))
        sender.start()
        received = [receiver.recv(100) for _ in range(earlier + len(entries))]
        sender.join()
    assert all(sent)
    assert received[earlier:] == entries


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


def test_the_journal_is_known_by_the_identity_of_stderr_not_by_the_variable_alone() -> None:
    with Path(os.devnull).open() as stream:
        status = os.fstat(stream.fileno())
        assert is_journal(stream, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        assert not is_journal(stream, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino + 1}"})
        assert not is_journal(stream, {})
