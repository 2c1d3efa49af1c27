"""Servers die, hang and send garbage; the other servers and the gateway do not notice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from local_mcp_gateway.store.model import ServerDefinition, ServerKind
from tests.gateway.messages import HELLO, call
from tests.gateway.processes import alive, gone, stop
from tests.gateway.support import DEFAULTS, QUICK, SERVERS, gateway_of, http, process, stdio
from tests.gateway.using import names, use


async def test_a_killed_child_fails_its_call_and_serves_the_next_one(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        first = int(await use(running, "pid"))
        error = await use(running, "die")
        assert error["code"] == -32001
        assert "exited with code 3" in error["message"]
        second = int(await use(running, "pid"))
        assert second != first
        os.kill(second, signal.SIGKILL)
        await running.heard("upstream.lost", reason="it was ended by signal 9")
        assert int(await use(running, "pid")) not in {first, second}


async def test_a_killed_child_is_missed_though_a_grandchild_holds_its_output(
    tmp_path: Path,
) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py", "--grandchild")) as running:
        first = int(await use(running, "pid"))
        grandchild = int((await running.wrote("grandchild ")).split()[1])
        sleeping = asyncio.create_task(use(running, "sleep", seconds=60))
        await running.wrote("sleeping ")
        os.kill(first, signal.SIGKILL)
        assert "it was ended by signal 9" in (await sleeping)["message"]
        assert int(await use(running, "pid")) != first
        await gone(grandchild)


async def test_the_pipes_of_a_child_are_given_back_though_one_that_left_its_group_holds_them(
    tmp_path: Path,
) -> None:
    away = stdio("plain", "plain.py", "--grandchild", "--away")
    async with gateway_of(tmp_path, away) as running:
        left, held = [], []
        for _ in range(3):
            child = int(await use(running, "pid"))
            left.append(int((await running.wrote("grandchild ")).split()[1]))
            held.append(len(list(Path("/proc/self/fd").iterdir())))
            os.kill(child, signal.SIGKILL)
            await running.heard("upstream.lost")
            running.said.clear()
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert held == held[:1] * 3


async def test_of_a_long_line_of_stderr_the_beginning_is_told(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        error = await use(running, "die", line="boom " + "x" * 200_000 + "\n")
        assert "it exited with code 3: boom xxx" in error["message"]
        assert error["message"].endswith("x…")
        assert len(error["message"]) < 5_000


async def test_a_dead_child_comes_back_without_a_call(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        pid = int(await use(running, "pid"))
        os.kill(pid, signal.SIGKILL)
        await running.until(
            lambda: running.gateway.status()["servers"]["plain"]["pid"] not in {None, pid}
        )


async def test_a_frozen_server_does_not_disturb_another(tmp_path: Path) -> None:
    options = replace(QUICK, call_timeout_s=1)
    frozen, lively = stdio("frozen", "plain.py"), stdio("lively", "plain.py")
    async with gateway_of(tmp_path, frozen, lively, options=options) as running:
        await use(running, "pid")
        pid = running.gateway.status()["servers"]["frozen"]["pid"]
        await stop(pid)
        try:
            stuck = asyncio.create_task(use(running, "echo"))
            for _ in range(20):
                assert await use(running, "lively__echo", n=1) == '{"n": 1}'
            assert not stuck.done()
            assert "did not answer within 1 s" in (await stuck)["message"]
        finally:
            os.kill(pid, signal.SIGCONT)
        assert await use(running, "echo", back=True) == '{"back": true}'


async def test_a_child_that_answers_nothing_any_more_is_replaced(tmp_path: Path) -> None:
    options = replace(QUICK, call_timeout_s=1)
    async with gateway_of(tmp_path, stdio("plain", "plain.py"), options=options) as running:
        pid = int(await use(running, "pid"))
        await stop(pid)
        assert "did not answer within 1 s" in (await use(running, "echo"))["message"]
        lost = await running.heard("upstream.lost", server="plain")
        assert "it does not answer" in lost["reason"]
        await running.gateway.reload(QUICK)  # to start another may take longer than a second
        assert int(await use(running, "pid")) != pid
        assert not alive(pid)


async def test_the_last_lines_of_stderr_are_kept_for_the_status(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        await use(running, "flood")
        kept = ["x" * 500] * 20
        await running.until(lambda: running.gateway.status()["servers"]["plain"]["wrote"] == kept)


async def test_a_command_that_does_not_exist_is_told_and_the_others_are_listed(
    tmp_path: Path,
) -> None:
    ghost = ServerDefinition("ghost", ServerKind.STDIO, command="/no/such/command")
    options = replace(QUICK, list_timeout_s=3)
    async with gateway_of(tmp_path, ghost, stdio("plain", "plain.py"), options=options) as running:
        lost = await running.heard_after(running.post(call("tools/list")), "upstream.lost")
        assert lost["reason"] == "'/no/such/command' does not exist"
        assert await use(running, "echo") == "{}"
        status = running.gateway.status()["servers"]["ghost"]
        assert (status["state"], status["tools"]) == ("failed", None)
        assert status["retry_at"] is None or status["retry_at"].endswith("Z")


async def test_a_server_that_never_answers_costs_the_first_list_only_its_patience(
    tmp_path: Path,
) -> None:
    options = replace(QUICK, list_timeout_s=0.5, connect_timeout_s=2)
    mute = stdio("mute", "plain.py", "--mute")
    async with gateway_of(tmp_path, stdio("plain", "plain.py"), mute, options=options) as running:
        await running.heard_after(running.post(call("ping")), "call.finished")
        body = await (await running.post(call("tools/list"))).json()
        assert "tools" in body["result"]
        lost = await running.heard("upstream.lost", server="mute")
        assert lost["reason"].startswith("it did not answer within ")


async def test_junk_on_stdout_and_a_flood_on_stderr_are_let_go(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        assert await use(running, "junk", a=1) == '{"a": 1}'
        assert "this is no JSON" in (await running.heard("upstream.logged"))["line"]
        assert await use(running, "flood", b=2) == '{"b": 2}'


JUNK = [
    '{"jsonrpc":"2.0","method":"notifications/progress","params":[1]}',
    '{"jsonrpc":"2.0","method":"notifications/message","params":[1]}',
    '{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":5}}',
    '{"jsonrpc":"2.0","id":' + "9" * 5000 + ',"result":{}}',
    '{"jsonrpc":"2.0","method":"x","params":' + "[" * 5000 + "]" * 5000 + "}",
    '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":{}}}',
]


async def test_no_message_of_a_server_ends_its_connection_or_another_call(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        hello = await running.post(HELLO)
        assert hello.status == 200
        long = asyncio.create_task(use(running, "sleep", seconds=1))
        await running.wrote("sleeping ")
        assert json.loads(await use(running, "junk", lines=JUNK))["lines"] == JUNK
        assert await long == "slept"
        assert running.find("upstream.lost") is None


async def test_lists_that_could_not_be_fetched_are_fetched_again(tmp_path: Path) -> None:
    flaky = stdio("flaky", "plain.py", "--list-fails", "2")
    async with gateway_of(tmp_path, flaky) as running:
        first = await (await running.post(call("tools/list"))).json()
        assert first["result"]["tools"] == []
        await running.kept("flaky", '"echo"')
        again = await (await running.post(call("tools/list"))).json()
        assert "echo" in [tool["name"] for tool in again["result"]["tools"]]


async def test_a_large_answer_passes_and_one_beyond_the_limit_is_an_error(tmp_path: Path) -> None:
    options = replace(QUICK, max_message_bytes=12_000_000)
    async with gateway_of(tmp_path, stdio("plain", "plain.py"), options=options) as running:
        assert len(await use(running, "big", bytes=10 * 1024 * 1024)) == 10 * 1024 * 1024
        assert (
            "larger than 12000000 bytes" in (await use(running, "big", bytes=13_000_000))["message"]
        )
        assert await use(running, "echo") == "{}"


async def test_a_child_that_ignores_everything_is_killed_with_its_grandchildren(
    tmp_path: Path,
) -> None:
    stubborn = stdio("plain", "plain.py", "--ignore-term", "--ignore-eof", "--grandchild")
    async with gateway_of(tmp_path, stubborn) as running:
        child = int(await use(running, "pid"))
        grandchild = int((await running.heard("upstream.logged"))["line"].split()[1])
        assert alive(child)
        assert alive(grandchild)
    assert not alive(child)
    await gone(grandchild)


async def test_after_a_restart_the_last_known_tools_are_listed_without_the_server(
    tmp_path: Path,
) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        known = await (await running.post(call("tools/list"))).json()
        await running.kept("plain")
    options = replace(DEFAULTS, list_timeout_s=0.0)
    async with gateway_of(tmp_path, options=options) as running:
        assert await (await running.post(call("tools/list"))).json() == known
        assert running.gateway.status()["servers"]["plain"]["state"] != "ready"


async def test_a_server_that_was_restarted_and_forgot_its_sessions_is_used_on(
    tmp_path: Path,
) -> None:
    async with process(SERVERS / "plain_http.py") as (child, url):
        async with gateway_of(tmp_path, http("web", url)) as running:
            assert await use(running, "echo") == "echo"
            child.kill()
            await child.wait()
            assert (await use(running, "echo"))["code"] == -32001
            port = url.split(":")[2].split("/")[0]
            async with process(SERVERS / "plain_http.py", "--port", port):
                assert await use(running, "echo") == "echo"


async def test_a_server_that_lost_only_its_sessions_gets_a_new_one_and_the_call_again(
    tmp_path: Path,
) -> None:
    async with process(SERVERS / "plain_http.py") as (child, url):
        async with gateway_of(tmp_path, http("web", url)) as running:
            assert await use(running, "echo") == "echo"
            child.kill()
            await child.wait()
            port = url.split(":")[2].split("/")[0]
            async with process(SERVERS / "plain_http.py", "--port", port):
                assert await use(running, "echo") == "echo"


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ("crash", "it answered HTTP 500"),
        ("junk", "not valid JSON-RPC"),
        ("hang", "did not answer within"),
        ("redirect", "it redirects to http://127.0.0.1:9/elsewhere"),
    ],
)
async def test_what_an_http_server_does_wrong_is_said(
    tmp_path: Path, tool: str, words: str
) -> None:
    options = replace(QUICK, call_timeout_s=1, max_message_bytes=100_000)
    async with process(SERVERS / "plain_http.py") as (_, url):
        async with gateway_of(tmp_path, http("web", url), options=options) as running:
            assert words in (await use(running, tool))["message"]
            assert await use(running, "echo") == "echo"


async def test_an_http_server_that_is_not_there_is_said(tmp_path: Path) -> None:
    options = replace(QUICK, list_timeout_s=1)
    async with gateway_of(
        tmp_path, http("web", "http://127.0.0.1:9/mcp"), options=options
    ) as running:
        await running.post(call("tools/list"))
        lost = await running.heard("upstream.lost", server="web")
        assert "no connection to 127.0.0.1:9" in lost["reason"]


async def test_pages_that_go_round_in_a_circle_end_with_what_came(tmp_path: Path) -> None:
    circle = stdio("circle", "plain.py", "--same-cursor")
    async with gateway_of(tmp_path, circle) as running:
        assert "echo" in await names(running)
        line = await running.wrote("tools/list: it ends where the cursor")
        assert "'again' came again" in line
