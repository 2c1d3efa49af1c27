"""How many calls a profile and a token may make, and how one too many is answered."""

from __future__ import annotations

from pathlib import Path

import anyio

from local_mcp_gateway.gateway.clients.admission import FREE, Counter
from local_mcp_gateway.store import Policy
from tests.gateway.messages import call
from tests.gateway.routing.test_policy import PLAIN, known_of, set_policy


def test_a_minute_ends_for_each_call_by_itself() -> None:
    policy, counter = Policy(calls_per_minute=2), Counter()
    for now in (0.0, 10.0):
        assert counter.wait_s(policy, now) == 0
        counter.begin(policy, now)
    assert [counter.wait_s(policy, now) for now in (10.0, 59.5, 60.0)] == [50, 1, 0]
    counter.begin(policy, 60.0)
    assert counter.wait_s(policy, 60.0) == 10
    # A lower limit counts what was begun under the higher one.
    assert counter.wait_s(Policy(calls_per_minute=1), 60.0) == 60


async def test_calls_beyond_a_limit_are_told_when_to_come_back(tmp_path: Path) -> None:
    async with known_of(tmp_path, PLAIN) as known:
        running = known.running
        limited = await known.token("ci", policy=Policy(calls_per_minute=2))
        echo = call("tools/call", name="echo", arguments={})
        for _ in range(2):
            assert (await running.post(echo, **limited)).status == 200
        for method in ("ping", "tools/list"):
            assert method in FREE
            assert (await running.post(call(method), **limited)).status == 200
        refused = await running.post(echo, **limited)
        error = (await refused.json())["error"]
        wait_s = int(refused.headers["retry-after"])
        assert (refused.status, 50 < wait_s <= 60) == (429, True)
        assert error["data"] == {"retryAfterS": wait_s}
        assert "Too many calls for token 'ci': try again in" in error["message"]
        assert (await running.post(echo)).status == 200
        assert (await running.post(echo, **await known.token("other"))).status == 200


async def test_no_more_calls_run_at_once_than_a_profile_allows(tmp_path: Path) -> None:
    async with known_of(tmp_path, PLAIN) as known:
        running = known.running
        await set_policy(running, Policy(calls_at_once=1))
        session = await known.session({})
        sleep, echo = (
            call("tools/call", name, name=name, arguments={}) for name in ("sleep", "echo")
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: running.post(sleep, **session))
            await running.wrote("sleeping")
            refused = await running.post(echo)
            assert (refused.status, refused.headers["retry-after"]) == (429, "1")
            assert "profile 'default'" in (await refused.json())["error"]["message"]
            stop = {"jsonrpc": "2.0", "method": "notifications/cancelled"}
            await running.post({**stop, "params": {"requestId": "sleep"}}, **session)
        assert (await running.post(echo)).status == 200
