"""What servers say reaches the clients that it is for, and what they ask is answered by one of them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, types

from tests.gateway.messages import call, modern
from tests.gateway.support import Running, gateway_of, stdio
from tests.gateway.using import events, posted, session


async def test_a_changed_list_is_announced_once_and_fetched_again(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        same = await session(running)  # a client with the same capabilities
        await running.post(call("tools/list"), **same)
        await running.kept("plain")
        heard: list[Any] = []
        arrived = anyio.Event()

        async def listen(message: Any) -> None:
            heard.append(message)
            if isinstance(message, types.ToolListChangedNotification):
                arrived.set()

        async with Client(running.url, mode="legacy", message_handler=listen) as client:
            await client.call_tool("grow", {"name": "new_tool"})
            with anyio.fail_after(10):
                await arrived.wait()
            assert "new_tool" in [tool.name for tool in (await client.list_tools()).tools]
        assert len([m for m in heard if isinstance(m, types.ToolListChangedNotification)]) == 1


async def test_a_log_message_of_a_call_reaches_its_client(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        message = call("tools/call", name="log", arguments={})
        told, _ = await events(running, message, **await session(running))
        assert told["method"] == "notifications/message"
        assert told["params"] == {"level": "warning", "data": "be careful"}


async def test_a_client_is_not_asked_what_it_cannot_answer(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        async with Client(running.url, mode="legacy") as client:
            answer = await client.call_tool("ask", {"method": "sampling/createMessage"})
            assert "does not support sampling" in str(answer.content)


async def test_a_question_that_nobody_knows_passes_and_so_does_its_answer(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        headers = await session(running)
        question = {"method": "acme/weigh", "params": {"what": [1.50]}, "later": True}
        message = call("tools/call", 5, name="ask", arguments=question)
        async with posted(running, headers, message) as stream:
            _, asked = await stream.next()
            assert (asked["method"], asked["params"]) == ("acme/weigh", {"what": [1.5]})
            answer = {"jsonrpc": "2.0", "id": asked["id"], "result": {"kg": 7}}
            assert (await running.post(answer, **headers)).status == 202
            told = (await stream.next())[1]["result"]["content"][0]["text"]
            assert json.loads(told) == {"kg": 7}


async def ask(running: Running, headers: dict[str, str]) -> str:
    """Let the server ask something in a call; return what it was answered."""
    arguments = {"method": "elicitation/create", "params": {}}
    reply = await running.post(call("tools/call", name="ask", arguments=arguments), **headers)
    body = await reply.text()
    return json.loads(body)["result"]["content"][0]["text"]  # type: ignore[no-any-return]


async def test_what_a_stateless_client_cannot_be_asked_is_told_to_its_server(
    tmp_path: Path,
) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        arguments = {"method": "roots/list", "params": {}}
        message, headers = modern("tools/call", "ask", arguments=arguments)
        answer = await (await running.post(message, **headers)).json()
        told = answer["result"]["content"][0]["text"]
        assert "The client does not support roots" in told


async def test_a_question_goes_to_nobody_where_it_could_be_for_another_client(
    tmp_path: Path,
) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        one, other = await session(running), await session(running)
        long = call("tools/call", 77, name="sleep", arguments={"seconds": 60})
        sleeping = asyncio.create_task(running.post(long, **other))
        await running.wrote("sleeping ")
        assert "No client is known" in await ask(running, one)
        assert "does not support elicitation" in await ask(running, other)
        sleeping.cancel()
