"""An HTTP server freezes, dies, breaks off and is slow; and two hundred clients come at once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from tests.gateway.messages import call
from tests.gateway.processes import stop
from tests.gateway.support import QUICK, SERVERS, gateway_of, http, process, stdio
from tests.gateway.using import session, use

PLAIN = stdio("plain", "plain.py")


async def test_a_frozen_http_server_costs_only_its_own_calls(tmp_path: Path) -> None:
    options = replace(QUICK, call_timeout_s=1)
    async with process(SERVERS / "plain_http.py") as (child, url):
        async with gateway_of(tmp_path, PLAIN, http("web", url), options=options) as running:
            assert await use(running, "web__echo") == "echo"
            await stop(child.pid)
            try:
                stuck = asyncio.create_task(use(running, "web__echo"))
                for number in range(20):
                    assert await use(running, "echo", n=number) == json.dumps({"n": number})
                assert "did not answer within 1 s" in (await stuck)["message"]
            finally:
                os.kill(child.pid, signal.SIGCONT)
            assert await use(running, "web__echo") == "echo"


async def test_a_server_that_is_frozen_from_the_start_is_said_and_met_when_it_thaws(
    tmp_path: Path,
) -> None:
    options = replace(QUICK, connect_timeout_s=1, list_timeout_s=0.2)
    async with process(SERVERS / "plain_http.py") as (child, url):
        await stop(child.pid)
        async with gateway_of(tmp_path, http("web", url), options=options) as running:
            try:
                await running.post(call("tools/list"))
                lost = await running.heard("upstream.lost", server="web")
                assert lost["reason"].startswith(
                    "it did not answer within 1 s (upstream.connect_timeout_s)"
                )
            finally:
                os.kill(child.pid, signal.SIGCONT)
            await running.heard("upstream.connected", server="web")
            assert await use(running, "echo") == "echo"


async def test_a_server_that_is_killed_in_the_middle_of_a_call_fails_that_call_at_once(
    tmp_path: Path,
) -> None:
    async with process(SERVERS / "plain_http.py") as (child, url):
        async with gateway_of(tmp_path, http("web", url)) as running:
            assert await use(running, "echo") == "echo"
            hanging = asyncio.create_task(use(running, "hang"))
            assert await use(running, "hanging") == "echo"
            child.kill()
            error = await hanging
            assert error["code"] == -32001
            assert "did not answer within" not in error["message"]


@pytest.mark.parametrize("tool", ["reset", "short"])
async def test_an_answer_that_breaks_off_fails_its_call_and_no_other(
    tmp_path: Path, tool: str
) -> None:
    async with process(SERVERS / "plain_http.py") as (_, url):
        async with gateway_of(tmp_path, http("web", url)) as running:
            error = await use(running, tool)
            assert error["code"] == -32001
            assert await use(running, "echo") == "echo"


async def test_an_answer_that_comes_byte_by_byte_arrives(tmp_path: Path) -> None:
    async with process(SERVERS / "plain_http.py") as (_, url):
        async with gateway_of(tmp_path, http("web", url)) as running:
            assert await use(running, "drip") == "drop"


async def test_a_client_that_leaves_cancels_its_call_at_an_http_server(tmp_path: Path) -> None:
    async with process(SERVERS / "plain_http.py") as (_, url):
        async with gateway_of(tmp_path, http("web", url)) as running:
            assert await use(running, "echo") == "echo"
            message = call("tools/call", name="hang", arguments={})
            hanging = asyncio.create_task(running.post(message))
            assert await use(running, "hanging") == "echo"
            hanging.cancel()
            assert await use(running, "cancelled") == "echo"
            assert (await running.heard("call.finished", target="hang"))["status"] == "cancelled"


async def test_two_hundred_clients_at_once_get_their_own_answers_and_leave_nothing(
    tmp_path: Path,
) -> None:
    patient = replace(
        QUICK, call_timeout_s=60, keepalive_s=60
    )  # 200 share what processors there are
    async with process(SERVERS / "plain_http.py") as (_, url):
        async with gateway_of(tmp_path, PLAIN, http("web", url), options=patient) as running:

            async def client(number: int) -> None:
                headers = await session(running)
                for tool in ("raw", "web__raw"):
                    message = call("tools/call", 1, name=tool, arguments={"n": number})
                    body = await (await running.post(message, **headers)).json()
                    received = json.loads(body["result"]["content"][0]["text"])
                    assert received["params"]["arguments"] == {"n": number}
                (name, value), *_ = headers.items()
                gone = await running.http.delete(
                    running.url, headers={name.replace("_", "-"): value}
                )
                assert gone.status == 200

            await asyncio.gather(*(client(number) for number in range(200)))
            assert running.gateway.status()["sessions"] == 0
