"""What clients watch at a server that speaks both protocols, or the stateless one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from local_mcp_gateway.store.model import ServerDefinition
from tests.conformance.sides import EVERYTHING
from tests.gateway.messages import call, modern
from tests.gateway.support import TWICE, Running, gateway_of, http, stdio
from tests.gateway.using import ACCEPT, Stream, opened, session, use, use_modern


@asynccontextmanager
async def listening(running: Running, **wanted: Any) -> AsyncIterator[Stream]:
    message, headers = modern("subscriptions/listen", notifications=wanted)
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    async with running.http.post(running.url, json=message, headers={**named, **ACCEPT}) as reply:
        stream = Stream(reply)
        _, acknowledged = await stream.next()
        assert acknowledged["params"]["notifications"] == wanted
        yield stream


async def test_a_resource_that_either_child_changes_is_told_to_clients_of_both_eras(
    tmp_path: Path,
) -> None:
    async with gateway_of(tmp_path, TWICE) as running:
        headers = await session(running)
        await running.post(call("resources/subscribe", uri="twice://it"), **headers)
        async with (
            listening(running, resourceSubscriptions=["twice://it"]) as stateless,
            opened(running, headers) as handshake,
        ):
            for change in (use, use_modern):
                await change(running, "change")
                for stream in (stateless, handshake):
                    _, told = await stream.next()
                    assert told["params"].pop("_meta", {}).keys() <= {
                        "io.modelcontextprotocol/subscriptionId"
                    }
                    assert told["params"] == {"uri": "twice://it"}


@pytest.mark.parametrize("transport", ["http", "stdio"])
async def test_a_handshake_client_watches_a_resource_of_a_stateless_server(
    tmp_path: Path, transport: str
) -> None:
    async with over_twice(transport) as server:
        async with gateway_of(tmp_path, server) as running:
            await running.post(call("tools/list"))
            headers = await session(running)
            reply = await running.post(call("resources/subscribe", uri="twice://it"), **headers)
            assert (await reply.json())["result"] == {}
            async with opened(running, headers) as stream:
                await use(running, "change")
                assert (await stream.next())[1]["params"] == {"uri": "twice://it"}
            await running.post(call("resources/unsubscribe", uri="twice://it"), **headers)
            with anyio.fail_after(30):  # over HTTP the server finds out by the end of a connection
                while await use(running, "watched") != "0":
                    pass
            level = await running.post(call("logging/setLevel", level="error"), **headers)
            assert (await level.json())["result"] == {}


@asynccontextmanager
async def over_twice(transport: str) -> AsyncIterator[ServerDefinition]:
    if transport == "stdio":
        yield stdio("twice", "twice.py", "--stateless")
        return
    from tests.gateway.servers import twice
    from tests.gateway.support import serve

    async with serve(twice.app) as url:
        yield http("twice", url + "/mcp")


async def test_a_changed_list_is_announced_as_what_it_is(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, EVERYTHING) as running:
        await running.post(call("tools/list"))
        await running.heard("catalog.saved", server="everything")
        wanted = {"toolsListChanged": True, "promptsListChanged": True}
        async with listening(running, **wanted) as stream:
            await use_modern(running, "test_trigger_prompt_change")
            heard = b""
            with anyio.fail_after(30):
                while b"notifications/prompts/list_changed" not in heard:
                    heard += await stream.reply.content.readany()
            assert b"notifications/tools/list_changed" not in heard
