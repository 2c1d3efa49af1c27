"""Real signals, to this very process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from local_mcp_gateway.service.signals import Signals
from tests.harness import Place, poll


async def test_a_stop_signal_reaches_the_guard_and_the_loop() -> None:
    with Signals() as signals, anyio.fail_after(5):
        signals.attach()
        os.kill(os.getpid(), signal.SIGTERM)
        await signals.stopped()
        assert signals.stop.is_set()
        assert signals.name == "SIGTERM"


@pytest.mark.parametrize("arguments", [(), ("--dev",)])
def test_a_start_can_be_stopped_as_soon_as_it_hears_signals(
    shipped: Place, arguments: tuple[str, ...]
) -> None:
    with shipped.serve(*arguments) as gateway:
        poll(lambda: catches_sigterm(gateway.process.pid))
        gateway.signal(signal.SIGTERM)
        assert gateway.wait() == 0
        assert "service.ready" not in gateway.names()


@pytest.mark.parametrize("arguments", [(), ("--dev",)])
def test_a_start_that_is_asked_to_reload_goes_on(
    shipped: Place, arguments: tuple[str, ...]
) -> None:
    with shipped.serve(*arguments) as gateway:
        poll(lambda: catches_sigterm(gateway.process.pid))
        gateway.signal(signal.SIGHUP)
        gateway.wait_ready()
        assert gateway.stop() == 0


def catches_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


async def test_a_signal_that_came_before_the_loop_is_seen_by_it() -> None:
    with Signals() as signals, anyio.fail_after(5):
        os.kill(os.getpid(), signal.SIGINT)
        signals.attach()
        await signals.stopped()
        assert signals.name == "SIGINT"


async def test_a_second_stop_signal_means_impatience() -> None:
    with Signals() as signals, anyio.fail_after(5):
        signals.attach()
        os.kill(os.getpid(), signal.SIGTERM)
        await signals.stopped()
        os.kill(os.getpid(), signal.SIGTERM)
        await signals.second_signal()


async def test_reload_requests_that_come_together_are_one() -> None:
    with Signals() as signals:
        signals.attach()
        os.kill(os.getpid(), signal.SIGHUP)
        signals.request_reload()
        with anyio.fail_after(5):
            await signals.reload()
        with anyio.move_on_after(0) as scope:
            await signals.reload()
        assert scope.cancelled_caught
        assert not signals.stop.is_set()


def test_the_previous_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Signals():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


STORMED = """
from local_mcp_gateway.service.signals import Signals
with Signals() as signals:
    print("ready", flush=True)
    while not signals._reload_wanted:
        pass
"""


def test_a_signal_in_the_middle_of_another_ones_handler_is_taken() -> None:
    with subprocess.Popen([sys.executable, "-c", STORMED], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        for _ in range(20_000):
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGHUP)
        try:
            assert process.wait(30) == 0
        finally:
            process.kill()
