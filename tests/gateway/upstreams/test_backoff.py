"""How long to wait before the next attempt, and who waits for it."""

from __future__ import annotations

import asyncio
import gc

import pytest

from local_mcp_gateway.gateway.upstreams.backoff import (
    FIRST_PAUSE_S,
    FREE,
    LEAST_S,
    MOST_S,
    SETTLE_MOST_S,
    SETTLE_S,
    ChangeDebounce,
    ConnectionWaiters,
    ReconnectBackoff,
    backoff_s,
)
from local_mcp_gateway.gateway.upstreams.connection import UpstreamDisconnected


def test_the_pause_is_the_servers_and_doubles_while_nothing_comes() -> None:
    pace = ReconnectBackoff()
    assert [pace.pause_s() for _ in range(3)] == [1, 2, 4]
    pace.heard(5000)
    assert [pace.pause_s(), pace.pause_s()] == [5, 10]
    pace.heard(0)
    assert pace.pause_s() == LEAST_S
    pace.heard(10**9)
    assert pace.pause_s() == MOST_S


def test_a_server_whose_lists_never_rest_is_fetched_less_and_less_often() -> None:
    debounce, now, pauses = ChangeDebounce(), 0.0, []
    for _ in range(FREE + 12):
        pauses.append(debounce.pause_s(now))
        now += pauses[-1]
    assert pauses[: FREE + 1] == [SETTLE_S] * (FREE + 1)
    assert pauses[FREE + 1] == 2 * SETTLE_S
    assert pauses == sorted(pauses)
    assert pauses[-1] == SETTLE_MOST_S
    assert debounce.pause_s(now + 100) == SETTLE_S


@pytest.mark.parametrize("failures", [1, 2, 5, 1000])
def test_servers_that_died_together_do_not_come_back_together(failures: int) -> None:
    most = min(FIRST_PAUSE_S * 2 ** min(failures - 1, 16), 30.0)
    pauses = {backoff_s(failures, 30.0) for _ in range(50)}
    assert len(pauses) > 1
    assert all(most / 2 <= pause <= most for pause in pauses)


async def test_all_who_wait_for_a_connection_hear_that_it_failed_and_later_ones_do_not() -> None:
    waiters = ConnectionWaiters()
    waiting = [asyncio.create_task(waiters.wait()) for _ in range(2)]
    await asyncio.sleep(0)
    waiters.reject("it is not there")
    for task in waiting:
        with pytest.raises(UpstreamDisconnected, match="it is not there"):
            await task
    later = asyncio.create_task(waiters.wait())
    await asyncio.sleep(0)
    assert not later.done()
    later.cancel()


async def test_a_call_that_ended_while_its_connection_failed_leaves_no_error_behind() -> None:
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    waiters = ConnectionWaiters()
    call = asyncio.create_task(waiters.wait())
    await asyncio.sleep(0)
    waiters.reject("it exited with code 0")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    del call
    gc.collect()
    assert reported == []
