"""A child that breaks the protocol costs its own calls at most."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from local_mcp_gateway.gateway.upstreams import upstream
from tests.gateway.messages import call
from tests.gateway.support import QUICK, Running, gateway_of, stdio
from tests.gateway.using import events, session, use

RUDE, PLAIN = stdio("rude", "rude.py"), stdio("plain", "plain.py")
PATIENT = replace(QUICK, call_timeout_s=120)


async def write(running: Running, line: bytes) -> Any:
    """Have the child write this; ID stands for the id of the call."""
    arguments = {"hex": line.hex()}
    reply = await running.post(call("tools/call", name="write", arguments=arguments))
    return json.loads(await reply.read())


async def test_a_child_that_reads_no_more_is_replaced_at_once(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, RUDE, options=PATIENT) as running:
        with anyio.fail_after(30):
            lost = await use(running, "deaf")
            assert "closed its input" in lost["message"]
            assert await use(running, "swarm", count=1) == "swarm"
            assert await use(running, "deaf", answer=True) == "deaf"
            assert await use(running, "swarm", count=1) == "swarm"


async def test_a_byte_order_mark_before_the_first_message_is_passed_over(tmp_path: Path) -> None:
    options = replace(QUICK, connect_timeout_s=3)
    async with gateway_of(tmp_path, stdio("rude", "rude.py", "--bom"), options=options) as running:
        assert await use(running, "swarm", count=1) == "swarm"


async def test_an_answer_that_repeats_its_id_as_text_or_as_a_float_is_taken(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, RUDE) as running:
        for identity in (b'"ID"', b"ID.0"):
            line = b'{"jsonrpc":"2.0","id":%s,"result":{"content":[]}}\n' % identity
            assert (await write(running, line))["result"] == {"content": []}


async def test_members_that_a_child_writes_as_null_are_not_there(tmp_path: Path) -> None:
    note = b'{"jsonrpc":"2.0","id":null,"method":"notifications/message","params":{"data":"a"}}\n'
    line = b'{"jsonrpc":"2.0","id":ID,"method":null,"params":null,"result":{"content":[]},"error":null}\n'
    async with gateway_of(tmp_path, RUDE) as running:
        arguments = {"hex": (note + line).hex()}
        said = await events(running, call("tools/call", name="write", arguments=arguments))
        assert [message.get("method") for message in said] == ["notifications/message", None]
        assert said[1]["result"] == {"content": []}


async def test_what_a_child_writes_that_is_no_utf_8_reaches_the_client_as_text(
    tmp_path: Path,
) -> None:
    async with gateway_of(tmp_path, RUDE) as running:
        line = b'{"jsonrpc":"2.0","id":ID,"result":{"text":"caf\xe9 \xc3"}}\n'
        assert (await write(running, line))["result"] == {"text": "caf\ufffd \ufffd"}


async def test_half_an_emoji_reaches_the_other_side_as_text(tmp_path: Path) -> None:
    """As JavaScript writes a text that was cut to a length."""
    async with gateway_of(tmp_path, RUDE, PLAIN) as running:
        line = rb'{"jsonrpc":"2.0","id":ID,"result":{"text":"cut \ud83d","f":1.0,"s":"\\ud83d"}}'
        for sent in (line, b"[" + line + b"]"):
            answer = await write(running, sent + b"\n")
            assert answer["result"] == {"text": "cut \ufffd", "f": 1.0, "s": "\\ud83d"}
        body = json.dumps(call("tools/call", name="echo", arguments={"text": "cut \ud83d"}))
        headers = {"Content-Type": "application/json"}
        async with running.http.post(running.url, data=body, headers=headers) as reply:
            text = (await reply.json())["result"]["content"][0]["text"]
        assert json.loads(text) == {"text": "cut \ufffd"}


async def test_an_answer_beyond_the_limit_fails_its_own_call_wherever_its_id_stands(
    tmp_path: Path,
) -> None:
    options = replace(PATIENT, max_message_bytes=100_000)
    async with gateway_of(tmp_path, RUDE, PLAIN, options=options) as running:
        assert await use(running, "swarm", count=1) == "swarm"
        with anyio.fail_after(30):
            for other in (b'"id":ID', b'"id":"x","n":{"id":1,"id":2,"id":3,"id":4,"id":5,"id":6}'):
                long = b'{"jsonrpc":"2.0","result":{"items":[{%s}],"x":"%s"},"id":ID}\n' % (
                    other,
                    b"x" * 200_000,
                )
                assert "larger than 100000" in (await write(running, long))["error"]["message"]
                long = b'{"id":ID,"jsonrpc":"2.0","result":{"items":[{%s}],"x":"%s","id":99}}\n' % (
                    other,
                    b"x" * 200_000,
                )
                assert "larger than 100000" in (await write(running, long))["error"]["message"]


async def test_a_child_that_asks_without_end_and_does_not_read_is_ended(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, RUDE, PLAIN, options=PATIENT) as running:
        with anyio.fail_after(60):
            pestering = asyncio.create_task(use(running, "pester"))
            assert "questions" in (await pestering)["message"]
        assert await use(running, "echo") == "{}"


async def test_news_without_end_hold_up_nobody_else(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, RUDE, PLAIN, options=PATIENT) as running:
        await use(running, "echo")
        for _ in range(40):  # each of them is told all of it
            await session(running)
        swarm = asyncio.create_task(use(running, "swarm", count=200_000))
        for number in range(60):
            assert await use(running, "echo", n=number) == json.dumps({"n": number})
        assert not swarm.done(), "some hundred turns of the loop would do, if they were long"
        swarm.cancel()


async def test_news_for_a_server_that_does_not_read_do_not_pile_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "MOST_NOTIFICATIONS", 10)
    async with gateway_of(tmp_path, PLAIN, options=PATIENT) as running:
        pid = int(await use(running, "pid"))
        headers = await session(running)
        os.kill(pid, signal.SIGSTOP)
        try:
            for _ in range(100):
                news = {"jsonrpc": "2.0", "method": "notifications/x", "params": {"x": "x" * 10**5}}
                assert (await running.post(news, **headers)).status == 202
            assert len(asyncio.all_tasks()) < 50
        finally:
            os.kill(pid, signal.SIGCONT)
        assert await use(running, "echo") == "{}"
