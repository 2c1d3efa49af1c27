"""Real signals, to this very process."""

from __future__ import annotations

import os
import signal

import anyio

from local_mcp_gateway.service.signals import Signals


async def test_a_stop_signal_reaches_the_guard_and_the_loop() -> None:
    with Signals() as signals, anyio.fail_after(5):
        signals.attach()
        os.kill(os.getpid(), signal.SIGTERM)
        await signals.stopped()
        assert signals.stop.is_set()
        assert signals.name == "SIGTERM"


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
        await signals.insisted()


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
