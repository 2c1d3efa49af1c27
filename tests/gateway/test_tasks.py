"""Lifetimes: no task, descriptor or child process outlives its owner, and no failure is lost."""

from __future__ import annotations

import ast
import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import local_mcp_gateway
from local_mcp_gateway.gateway.tasks import TaskScope, described
from local_mcp_gateway.store import queries
from local_mcp_gateway.store.model import Member
from tests.gateway.messages import META, MODERN, call
from tests.gateway.processes import alive
from tests.gateway.support import SERVERS, Running, gateway_of, http, process, stdio
from tests.gateway.using import opened, session, use

PLAIN, TWICE = stdio("plain", "plain.py"), stdio("twice", "twice.py")


def running_tasks() -> Counter[str]:
    """Return what runs as a task, by the name of its work."""
    return Counter(_work_of(task) for task in asyncio.all_tasks())


def _work_of(task: asyncio.Task[Any]) -> str:
    work: Any = task.get_coro()
    inner: Any = getattr(work, "cr_await", None)
    if inner is not None and work.__qualname__ == "TaskScope._alone":
        return str(inner.__qualname__)
    return str(work.__qualname__)


async def left_over(before: Counter[str]) -> Counter[str]:
    """Return what runs besides, once what ends by itself has ended."""
    while besides := running_tasks() - before:
        tasks = [task for task in asyncio.all_tasks() if _work_of(task) in besides]
        done, _ = await asyncio.wait(tasks, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            break
    return besides


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def first_child(running: Running) -> int:
    return int(running.gateway.status()["servers"]["twice"]["pid"])


async def use_modern(running: Running, tool: str) -> str:
    message = call("tools/call", name=tool, arguments={}, _meta=META)
    headers = {"mcp_protocol_version": MODERN, "mcp_method": "tools/call", "mcp_name": tool}
    reply = await running.post(message, **headers)
    return str((await reply.json())["result"]["content"][0]["text"])


# --- the gateway ------------------------------------------------------------------------------------


async def test_after_a_stop_no_task_descriptor_or_child_is_left(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    async with process(SERVERS / "plain_http.py") as (_, url):
        async with gateway_of(tmp_path / "first", PLAIN) as running:  # what a process makes once
            await use(running, "echo")
        tasks, files = running_tasks(), descriptors()
        servers = (PLAIN, TWICE, http("web", url))
        async with gateway_of(tmp_path, *servers) as running:
            headers = await session(running)
            async with opened(running, headers):
                await use(running, "web__echo")
                pids = [int(await use(running, "pid")), int(await use(running, "twice__pid"))]
                pids.append(int(await use_modern(running, "twice__pid")))
                sleeping = asyncio.create_task(use(running, "sleep", seconds=30))
                await running.wrote("sleeping ")
            assert len(set(pids)) == 3
            meanwhile = running_tasks()
        await asyncio.wait([sleeping])
        assert meanwhile - tasks
        assert running_tasks() == tasks
        assert descriptors() == files
        assert not any(alive(pid) for pid in pids)


async def test_a_server_that_is_removed_takes_its_tasks_and_descriptors_along(
    tmp_path: Path,
) -> None:
    async with gateway_of(tmp_path, PLAIN) as running:
        await use(running, "echo")
        await running.kept("plain")
        assert not await left_over(before := running_tasks())
        files = descriptors()
        for _ in range(2):
            await queries.add_server(running.database, TWICE)
            profile = await queries.get_profile(running.database, "default")
            both = replace(profile, members=(Member("plain"), Member("twice")))
            await queries.update_profile(running.database, "default", both)
            await running.gateway.reload()
            pids = [int(await use(running, "twice__pid"))]
            pids.append(int(await use_modern(running, "twice__pid")))
            assert running_tasks() - before
            await queries.remove_server(running.database, "twice")
            await running.gateway.reload()
            assert not await left_over(before)
            assert not any(alive(pid) for pid in pids)
            assert descriptors() <= files


async def test_a_connection_that_is_lost_and_made_again_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    async with gateway_of(tmp_path, TWICE) as running:
        await use(running, "pid")
        await use_modern(running, "pid")
        await running.kept("twice")
        assert not await left_over(before := running_tasks())
        files = descriptors()
        for _ in range(3):
            pids = {int(await use(running, "pid")), int(await use_modern(running, "pid"))}
            assert len(pids) == 2
            running.said.clear()
            os.kill(first_child(running), signal.SIGKILL)
            await running.heard("upstream.lost", server="twice")
            assert not any(alive(pid) for pid in pids)
            await running.heard("upstream.connected", server="twice")
            await use_modern(running, "pid")
            assert not await left_over(before)
            assert descriptors() <= files


async def test_a_second_child_that_dies_leaves_nothing_behind_and_is_started_again(
    tmp_path: Path,
) -> None:
    async with gateway_of(tmp_path, TWICE) as running:
        await use(running, "pid")
        second = int(await use_modern(running, "pid"))
        await running.kept("twice")
        assert not await left_over(before := running_tasks())
        files = descriptors()
        os.kill(second, signal.SIGKILL)
        await running.wrote("the second child, for stateless clients, has ended")
        assert int(await use_modern(running, "pid")) != second
        assert not await left_over(before)
        assert descriptors() <= files


async def test_a_client_that_leaves_takes_its_call_and_its_streams_along(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, PLAIN) as running:
        await use(running, "echo")
        await running.kept("plain")
        assert not await left_over(before := running_tasks())
        headers = await session(running)
        async with opened(running, headers):
            sleeping = asyncio.create_task(use(running, "sleep", seconds=30))
            await running.wrote("sleeping ")
            assert running_tasks() - before
            sleeping.cancel()
            await running.wrote("cancelled ")
        assert not await left_over(before)


# --- failures ---------------------------------------------------------------------------------------


async def test_a_fault_in_the_task_of_one_server_is_told_and_costs_the_others_nothing(
    tmp_path: Path,
) -> None:
    async with gateway_of(tmp_path, PLAIN, TWICE) as running:
        catalog_sync = running.gateway.registry.upstreams["plain"].catalog_sync

        async def broken(_: object) -> None:
            raise ZeroDivisionError("planted")

        catalog_sync.run = broken  # type: ignore[method-assign, assignment]
        await use(running, "echo")
        failed = await running.heard("task.failed", server="plain")
        assert failed["message"].startswith("ZeroDivisionError: planted (test_tasks.py:")
        assert "planted" in (await running.heard("upstream.lost", server="plain"))["reason"]
        del catalog_sync.run
        running.said.clear()
        assert isinstance(await use(running, "watched"), str)
        await running.kept("plain")
        assert await use(running, "echo", a=1) == '{"a": 1}'
        assert running.find("task.failed") is None


async def test_a_fault_while_an_output_is_read_is_told_and_the_server_is_met_anew(
    tmp_path: Path,
) -> None:
    async with gateway_of(tmp_path, PLAIN) as running:
        pid = await use(running, "pid")
        await running.kept("plain")
        connection: Any = running.gateway.registry.upstreams["plain"].lifecycle.connection

        def broken(_: bytes) -> None:
            raise ZeroDivisionError("planted")

        connection.received = broken
        error = await use(running, "echo")
        assert "its output could not be read: planted" in error["message"]
        failed = await running.heard("task.failed", server="plain")
        assert failed["message"].startswith("ZeroDivisionError: planted (test_tasks.py:")
        assert await use(running, "pid") != pid


# --- the scope --------------------------------------------------------------------------------------


def nobody_fails(error: Exception) -> None:
    raise error


async def forever() -> None:
    await asyncio.Event().wait()


async def test_a_scope_ends_after_the_last_of_its_tasks() -> None:
    steps: list[str] = []

    async def work() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0)
            steps.append("cleaned up")

    async with TaskScope(nobody_fails) as scope:
        scope.start(work)
        await asyncio.sleep(0)
    steps.append("over")
    assert steps == ["cleaned up", "over"]


async def test_a_task_of_a_scope_fails_alone_and_is_told() -> None:
    told: list[Exception] = []

    async def fail(text: str) -> None:
        raise ValueError(text)

    async with TaskScope(told.append) as scope:
        other = scope.start(forever)
        await asyncio.wait([scope.start(fail, "once"), scope.start(fail, "twice")])
        assert not other.done()
    assert [str(error) for error in told] == ["once", "twice"]
    assert described(told[0]).startswith("ValueError: once (test_tasks.py:")


async def test_what_the_block_of_a_scope_raises_goes_on_as_it_is() -> None:
    started: list[asyncio.Future[None]] = []

    async def owner() -> None:
        async with TaskScope(nobody_fails) as scope:
            started.append(scope.start(forever))
            raise KeyError("ours")

    with pytest.raises(KeyError, match="ours"):
        await owner()
    assert started[0].cancelled()


async def test_a_scope_that_has_ended_starts_nothing() -> None:
    async with TaskScope(nobody_fails) as scope:
        pass
    assert scope.start(forever).cancelled()


async def test_a_task_that_is_started_while_its_scope_ends_does_not_hold_it_up() -> None:
    async with TaskScope(nobody_fails) as scope:

        async def last_words() -> None:
            try:
                await forever()
            finally:
                assert scope.start(forever).cancelled()

        scope.start(last_words)
        await asyncio.sleep(0)


async def test_whoever_is_cancelled_inside_a_scope_still_ends_its_tasks() -> None:
    inside: list[asyncio.Future[None]] = []

    async def owner() -> None:
        async with TaskScope(nobody_fails) as scope:
            inside.append(scope.start(forever))
            await forever()

    owning = asyncio.create_task(owner())
    await asyncio.sleep(0)
    owning.cancel()
    await asyncio.wait([owning])
    assert owning.cancelled()
    assert inside[0].cancelled()


# --- the rule ---------------------------------------------------------------------------------------


def loose(tree: ast.AST, groups: frozenset[str] = frozenset()) -> Iterator[int]:
    """Yield the lines where a task is made that is in no task group."""
    if isinstance(tree, ast.ClassDef) and any("TaskGroup" in ast.unparse(b) for b in tree.bases):
        groups |= {"self"}
    if isinstance(tree, ast.AsyncWith):
        groups |= {
            ast.unparse(item.optional_vars)
            for item in tree.items
            if item.optional_vars and ast.unparse(item.context_expr) == "asyncio.TaskGroup()"
        }
    if isinstance(tree, ast.Call):
        owner, _, made = ast.unparse(tree.func).rpartition(".")
        if made in {"ensure_future", "gather", "run_coroutine_threadsafe"}:
            yield tree.lineno
        if made == "create_task" and owner not in groups:
            yield tree.lineno
    for child in ast.iter_child_nodes(tree):
        yield from loose(child, groups)


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("asyncio.create_task(work())", [1]),
        ("from asyncio import create_task\ncreate_task(work())", [2]),
        ("await asyncio.gather(work())", [1]),
        ("loop.create_task(work())", [1]),
        ("async with asyncio.TaskGroup() as tasks:\n    tasks.create_task(work())", []),
        ("async with asyncio.TaskGroup() as tasks:\n    pass\ntasks.create_task(work())", [3]),
    ],
)
def test_a_loose_task_is_found(code: str, lines: list[int]) -> None:
    assert list(loose(ast.parse(code))) == lines


def test_every_task_is_born_in_a_task_group() -> None:
    folder = Path(next(iter(local_mcp_gateway.__path__)))
    found = {
        str(path.relative_to(folder)): lines
        for path in folder.rglob("*.py")
        if (lines := list(loose(ast.parse(path.read_text()))))
    }
    assert found == {}
