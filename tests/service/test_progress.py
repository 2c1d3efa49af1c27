"""The progress of a start, on systemd's status line and in the log."""

from __future__ import annotations

import asyncio
import socket
from contextlib import closing

import pytest

from local_mcp_gateway.service import progress
from local_mcp_gateway.service.progress import StatusLine
from local_mcp_gateway.service.systemd.notify import Notifier
from tests.service.machine import received


def test_the_events_of_a_start_become_one_sentence_and_more_time(manager: socket.socket) -> None:
    with closing(Notifier(manager.getsockname())) as notifier:
        status = StatusLine(notifier)
        status("guard.waiting", pid=42)
        status("call.finished")
    assert received(manager) == [
        "EXTEND_TIMEOUT_USEC=30000000\nSTATUS=waiting for the database's lock, held by process 42",
    ]


def test_a_backup_is_told_with_its_size_and_share_but_not_for_every_step(
    manager: socket.socket,
) -> None:
    with closing(Notifier(manager.getsockname())) as notifier:
        status = StatusLine(notifier)
        for done in range(1000):
            status.progress("backup", done << 20, 1000 << 20)
    messages = received(manager)
    assert messages[0] == "EXTEND_TIMEOUT_USEC=30000000\nSTATUS=backing up 1000.0 MiB, 0 %"
    assert len(messages) < 20


def test_each_migration_is_named_however_quickly_the_last_one_went(manager: socket.socket) -> None:
    with closing(Notifier(manager.getsockname())) as notifier:
        status = StatusLine(notifier)
        status.progress("rehearse 0003_tags", 0, 2)
        status.progress("rehearse 0004_words", 1, 2)
        status.progress("apply 0003_tags", 0, 1)
    assert [message.partition("STATUS=")[2] for message in received(manager)] == [
        "rehearsing 0003_tags, 1 of 2",
        "rehearsing 0004_words, 2 of 2",
        "applying 0003_tags",
    ]


async def test_a_long_start_says_in_the_log_how_far_it_is(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "REPORT_EVERY_S", 0.001)
    told: list[dict[str, object]] = []
    enough = asyncio.Event()

    def emit(event: str, /, **fields: object) -> None:
        assert event == "guard.progressed"
        told.append(fields)
        enough.set()

    with closing(Notifier(manager.getsockname())) as notifier:
        status = StatusLine(notifier)
        status("guard.resolved", pending=["0001_x"])
        status.progress("backup", 3, 8)
        async with asyncio.timeout(60), progress.report_progress(status, notifier, emit):
            await enough.wait()
    assert (told[0]["phase"], told[0]["percent"]) == ("backup", 37)
    assert "EXTEND_TIMEOUT_USEC=30000000" in received(manager)
