"""A connection that is made on demand: who waits for it, and what they hear when it cannot be made."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from local_mcp_gateway.config import Settings
from local_mcp_gateway.database import no_report
from local_mcp_gateway.gateway.tasks import TaskScope
from local_mcp_gateway.gateway.upstreams.connection import Connection, UpstreamDisconnected
from local_mcp_gateway.gateway.upstreams.lifecycle import ConnectionLifecycle, UpstreamState
from local_mcp_gateway.service.options import gateway_options
from local_mcp_gateway.store import ServerDefinition, ServerKind


class Unreachable(AbstractAsyncContextManager[Connection]):
    """Opens no connection: every attempt fails once `fails` is set."""

    owner: object = None
    in_use = False

    def __init__(self) -> None:
        self.fails = asyncio.Event()
        self.after_failure: Callable[[], object] = lambda: None

    def open_connection(self) -> Unreachable:
        return self

    async def __aenter__(self) -> Connection:
        await self.fails.wait()
        raise UpstreamDisconnected("it is not there")

    async def __aexit__(self, *_: object) -> None:
        raise AssertionError

    def on_connect(self, connection: Connection, tasks: TaskScope) -> None:
        raise AssertionError(connection, tasks)

    async def while_connected(self, connection: Connection) -> None:
        raise AssertionError(connection)

    def on_disconnect(self) -> None:
        raise AssertionError

    def on_failure(self) -> None:
        self.after_failure()

    def task_failed(self, error: Exception) -> None:
        raise error


def of(user: Unreachable, tasks: TaskScope) -> ConnectionLifecycle:
    definition = ServerDefinition("away", ServerKind.HTTP, url="http://127.0.0.1:9/mcp")
    life = ConnectionLifecycle(definition, gateway_options(Settings()), user, no_report)
    life.start(tasks)
    return life


async def test_all_who_wait_for_a_connection_hear_that_it_failed_and_later_ones_do_not() -> None:
    user = Unreachable()
    async with TaskScope(user.task_failed) as tasks:
        life = of(user, tasks)
        waiting = [asyncio.create_task(life.connect()) for _ in range(2)]
        await asyncio.sleep(0)
        user.fails.set()
        for task in waiting:
            with pytest.raises(UpstreamDisconnected, match="it is not there"):
                await task
        assert life.state is UpstreamState.FAILED
        later = asyncio.create_task(life.connect())
        await asyncio.sleep(0)
        assert not later.done()
        later.cancel()


async def test_a_call_that_ended_while_its_connection_failed_leaves_no_error_behind() -> None:
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    user = Unreachable()
    async with TaskScope(user.task_failed) as tasks:
        call = asyncio.create_task(of(user, tasks).connect())
        user.after_failure = call.cancel  # after it was failed, before it runs again
        user.fails.set()
        with pytest.raises(asyncio.CancelledError):
            await call
        del call, user
    gc.collect()
    assert reported == []


async def test_who_waits_for_a_connection_that_is_stopped_hears_it_and_so_does_who_comes_later() -> (
    None
):
    user = Unreachable()
    async with TaskScope(user.task_failed) as tasks:
        life = of(user, tasks)
        waiting = asyncio.create_task(life.connect())
        await asyncio.sleep(0)
        await life.stop()
        for call in (waiting, life.connect()):
            with pytest.raises(UpstreamDisconnected, match="the server was removed"):
                await call
