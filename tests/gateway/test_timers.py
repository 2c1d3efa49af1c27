"""Deadlines of many calls on one timer."""

from __future__ import annotations

import asyncio

import anyio
import anyio.lowlevel
import pytest

from local_mcp_gateway.gateway.tasks import Deadline, Timer, TimerWheel


async def test_a_deadline_that_is_over_ends_what_is_inside() -> None:
    timers = TimerWheel(0.01)
    with anyio.fail_after(30):
        with pytest.raises(TimeoutError):
            with Deadline(timers, 0.02):
                await anyio.sleep_forever()
        await anyio.lowlevel.checkpoint()  # the task is not cancelled any more


class Clock(TimerWheel):
    """Timers by a time that the test sets; each tick of them can be waited for."""

    def __init__(self) -> None:
        super().__init__(0.001)
        self.time_s = 0.0
        self.ticked = asyncio.Event()

    def now(self) -> float:
        return self.time_s

    async def pass_by(self, seconds: float) -> None:
        self.time_s += seconds
        self.ticked.clear()
        await self.ticked.wait()

    def _tick(self) -> None:
        super()._tick()
        self.ticked.set()


async def test_a_sign_of_life_moves_a_deadline() -> None:
    clock, signs = Clock(), 0

    async def work() -> None:
        nonlocal signs
        with Deadline(clock, 2.0) as deadline:
            for signs in range(1, 8):  # noqa: B007  read outside
                await clock.pass_by(1.5)
                deadline.extend()
            await clock.pass_by(2.5)
            await anyio.sleep_forever()

    with anyio.fail_after(30), pytest.raises(TimeoutError):
        await work()
    assert signs == 7


async def test_what_was_cancelled_by_somebody_else_stays_cancelled() -> None:
    inside = asyncio.Event()

    async def work() -> None:
        with Deadline(TimerWheel(0.01), 1000):
            inside.set()
            await anyio.sleep_forever()

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_deadline_inside_another_ends_only_its_own() -> None:
    timers = TimerWheel(0.01)
    with anyio.fail_after(30):
        with Deadline(timers, 1000):
            with pytest.raises(TimeoutError):
                with Deadline(timers, 0.02):
                    await anyio.sleep_forever()
            await asyncio.sleep(0)


class Bell(Timer):
    """Tells that it has rung."""

    def __init__(self) -> None:
        self.rung = asyncio.Event()

    def fire(self) -> None:
        self.rung.set()


async def test_a_timer_that_was_taken_back_does_not_fire_and_the_timer_ends() -> None:
    timers, taken_back, left = TimerWheel(0.01), Bell(), Bell()
    timers.set(taken_back, 0.01)
    timers.set(left, 0.05)
    timers.unset(taken_back)
    with anyio.fail_after(30):
        await left.rung.wait()
    assert timers._ticking is None
    assert not taken_back.rung.is_set()


async def test_a_timer_that_fires_may_set_itself_again() -> None:
    timers, twice = TimerWheel(0.01), asyncio.Event()

    class Snooze(Timer):
        rung = 0

        def fire(self) -> None:
            self.rung += 1
            if self.rung == 1:
                timers.set(self, 0.01)
            else:
                twice.set()

    timers.set(Snooze(), 0.01)
    with anyio.fail_after(30):
        await twice.wait()


async def test_a_timer_that_fails_does_not_keep_the_others_from_firing() -> None:
    loop, told, bell = asyncio.get_running_loop(), asyncio.Event(), Bell()
    loop.set_exception_handler(lambda _, __: told.set())

    class Broken(Timer):
        def fire(self) -> None:
            raise ZeroDivisionError

    timers = TimerWheel(0.01)
    for _ in range(8):  # whichever of them comes first
        timers.set(Broken(), 0.01)
    timers.set(bell, 0.02)
    with anyio.fail_after(30):
        await bell.rung.wait()
    assert told.is_set()
