"""What systemd hears, on a real datagram socket."""

from __future__ import annotations

import socket
import threading
from contextlib import closing
from pathlib import Path

import pytest

from local_mcp_gateway.service.systemd.notify import Notifier, watchdog_interval_s
from tests.service.machine import received


def test_ready_and_its_status_are_one_message(manager: socket.socket) -> None:
    with closing(Notifier(manager.getsockname())) as notifier:
        notifier.ready("serving 2 servers")
    assert received(manager) == ["READY=1\nSTATUS=serving 2 servers"]


def test_a_status_with_line_breaks_cannot_smuggle_in_a_field(manager: socket.socket) -> None:
    with closing(Notifier(manager.getsockname())) as notifier:
        notifier.status("broken\nREADY=1")
    assert received(manager) == ["STATUS=broken READY=1"]


def test_an_abstract_address_works_too() -> None:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        closing(Notifier("@local-mcp-gateway-test-notify")) as notifier,
    ):
        manager.bind("\0local-mcp-gateway-test-notify")
        notifier.alive()
        assert manager.recv(100) == b"WATCHDOG=1"


def test_without_a_manager_nothing_is_sent_and_nothing_fails() -> None:
    notifier = Notifier.from_environment({})
    assert not notifier
    notifier.ready("fine")


def test_a_manager_that_went_away_is_no_error(tmp_path: Path) -> None:
    with closing(Notifier(str(tmp_path / "gone"))) as notifier:
        notifier.ready("fine")


def test_a_full_queue_costs_a_status_but_never_ready(manager: socket.socket) -> None:
    with closing(Notifier(manager.getsockname())) as notifier:
        for number in range(1000):
            notifier.status(f"status {number}")
        manager.setblocking(True)
        reader = threading.Thread(target=lambda: [manager.recv(4096) for _ in range(3)])
        reader.start()
        notifier.ready("serving")
        reader.join()
        manager.setblocking(False)
    assert received(manager)[-1] == "READY=1\nSTATUS=serving"


@pytest.mark.parametrize(
    ("environment", "interval_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "nonsense"}, None),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
    ],
)
def test_the_watchdog_is_fed_twice_in_its_patience(
    environment: dict[str, str], interval_s: float | None
) -> None:
    assert watchdog_interval_s(environment) == interval_s
