"""Deadlines of many calls on one timer."""

from __future__ import annotations

import asyncio

import anyio
import anyio.lowlevel
import pytest

from local_mcp_gateway.gateway.alarms import Alarms, Deadline


async def test_a_deadline_that_is_over_ends_what_is_inside() -> None:
    alarms = Alarms(0.01)
    with anyio.fail_after(30):
        with pytest.raises(TimeoutError):
            with Deadline(alarms, 0.02):
                await asyncio.sleep(1000)
        await anyio.lowlevel.checkpoint()  # the task is not cancelled any more


async def test_a_sign_of_life_moves_a_deadline() -> None:
    signs = 0

    async def work() -> None:
        nonlocal signs
        # Seven pauses are longer than the deadline, and one is far shorter, on a busy machine too.
        with Deadline(Alarms(0.01), 2.0) as deadline:
            for signs in range(1, 8):  # noqa: B007  read outside
                await asyncio.sleep(0.3)
                deadline.extend()
            await asyncio.sleep(1000)

    with anyio.fail_after(30), pytest.raises(TimeoutError):
        await work()
    assert signs == 7


async def test_what_was_cancelled_by_somebody_else_stays_cancelled() -> None:
    inside = asyncio.Event()

    async def work() -> None:
        with Deadline(Alarms(0.01), 1000):
            inside.set()
            await asyncio.sleep(1000)

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_deadline_inside_another_ends_only_its_own() -> None:
    alarms = Alarms(0.01)
    with anyio.fail_after(30):
        with Deadline(alarms, 1000):
            with pytest.raises(TimeoutError):
                with Deadline(alarms, 0.02):
                    await asyncio.sleep(1000)
            await asyncio.sleep(0)


async def test_an_alarm_that_was_taken_back_does_not_ring_and_the_timer_ends() -> None:
    alarms, rung = Alarms(0.01), asyncio.Event()
    order: list[str] = []
    taken_back = alarms.set(0.01, lambda: order.append("taken back"))
    alarms.set(0.05, rung.set)
    alarms.unset(taken_back)
    with anyio.fail_after(30):
        await rung.wait()
        while alarms._timer is not None:
            await asyncio.sleep(0.01)
    assert order == []
