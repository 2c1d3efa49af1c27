"""A stdio server that speaks both eras serves each client in the client's own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp import Client

from local_mcp_gateway.gateway.catalog import header_params
from local_mcp_gateway.gateway.protocol.jsonrpc import encode
from local_mcp_gateway.store.model import ServerDefinition, ServerKind
from tests.conformance.sides import MODULE, over_http
from tests.gateway.messages import META, MODERN, call
from tests.gateway.processes import alive
from tests.gateway.routing.test_input_required import name, roots
from tests.gateway.support import REPOSITORY, Running, gateway_of, http, stdio
from tests.gateway.using import ACCEPT, Stream, opened, session, use

EVERYTHING = ServerDefinition(
    "everything",
    ServerKind.STDIO,
    command=sys.executable,
    args=MODULE,
    cwd=str(REPOSITORY),
    env={"PYTHONPATH": os.pathsep.join(sys.path)},
)
TWICE = stdio("twice", "twice.py")


def modern(method: str, name: str | None = None, **params: Any) -> tuple[Any, dict[str, str]]:
    """Return a message of the stateless era, and its headers."""
    headers = {"mcp_protocol_version": MODERN, "mcp_method": method}
    if name is not None:
        headers["mcp_name"] = name
        params["name"] = name
    return call(method, _meta=META, **params), headers


async def use_modern(running: Running, tool: str, /, **arguments: Any) -> str:
    message, headers = modern("tools/call", tool, arguments=arguments)
    body = await (await running.post(message, **headers)).json()
    assert "result" in body, body
    return str(body["result"]["content"][0]["text"])


async def test_each_client_meets_the_server_in_its_own_era(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, EVERYTHING) as running:
        tool = "test_input_required_result_elicitation"
        async with Client(running.url, elicitation_callback=name) as client:
            assert "Hello, Ada!" in str((await client.call_tool(tool, {})).content)
        async with Client(running.url, mode="legacy", list_roots_callback=roots) as client:
            answer = await client.call_tool("test_elicitation", {"message": "m"})
            assert "not supported" in str(answer.content)


@pytest.mark.parametrize("more", [(), ("--mute",)])
async def test_a_second_child_runs_only_once_a_stateless_client_came(
    tmp_path: Path, more: tuple[str, ...]
) -> None:
    async with gateway_of(tmp_path, stdio("twice", "twice.py", *more)) as running:
        first = int(await use(running, "pid"))
        assert int(await use(running, "pid")) == first
        second = int(await use_modern(running, "pid"))
        assert second != first
        assert int(await use_modern(running, "pid")) == second
        assert int(await use(running, "pid")) == first
        os.kill(second, signal.SIGKILL)
        line = "the second child, for stateless clients, has ended: it was ended by signal 9"
        await running.heard("upstream.logged", line=line)
        third = int(await use_modern(running, "pid"))
        assert third not in {first, second}
        assert int(await use(running, "pid")) == first
    assert not alive(first)
    assert not alive(third)


@pytest.mark.parametrize("fault", ["--single", "--refuses"])
async def test_a_server_that_cannot_run_twice_serves_both_translated(
    tmp_path: Path, fault: str
) -> None:
    async with gateway_of(tmp_path, stdio("twice", "twice.py", fault, str(tmp_path))) as running:
        first = int(await use(running, "pid"))
        assert int(await use_modern(running, "pid")) == first
        assert int(await use_modern(running, "pid")) == first


@pytest.mark.parametrize("refuses", [True, False])
async def test_what_a_server_speaks_is_remembered_until_its_release_is_another(
    tmp_path: Path, *, refuses: bool
) -> None:
    release = tmp_path / "release"
    more = ("--refuses", str(tmp_path)) if refuses else ()
    twice = stdio("twice", "twice.py", "--release", str(release), *more)
    for version, asked in (("1", True), ("1", False), ("2", True), ("2", False)):
        release.write_text(version)
        async with gateway_of(tmp_path, twice) as running:
            first = int(await use(running, "pid"))
            if version == "2" and asked:
                await running.kept("twice", '"release":"2"')
            assert (int(await use_modern(running, "pid")) == first) is refuses
            assert (int(await use_modern(running, "pid")) == first) is refuses
            if asked and refuses:
                await running.wrote("asked")
            lines = [fields["line"] for name, fields in running.said if name == "upstream.logged"]
            assert lines.count("asked") == (asked and refuses)
            await running.kept("twice", '"both":' + ("false" if refuses else "true"))


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
                    await asyncio.sleep(0.01)
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


# --- arguments that are repeated as headers ---------------------------------------------------------


async def test_an_argument_and_the_header_that_repeats_it_have_to_agree(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, EVERYTHING) as running:
        await running.post(call("tools/list"))
        message, named = modern("tools/call", "test_x_mcp_header", arguments={"region": "eu"})
        for header in ("eu", "=?base64?ZXU=?="):
            reply = await running.post(message, **named, mcp_param_region=header)
            assert (await reply.json())["result"]["content"][0]["text"] == "region=eu"
        for sent in ({"mcp_param_region": "us"}, {"mcp_param_region": "=?base64?***?="}, {}):
            reply = await running.post(message, **named, **sent)
            assert reply.status == 400
            assert (await reply.json())["error"]["code"] == -32020


async def test_the_gateway_repeats_arguments_for_clients_that_do_not(tmp_path: Path) -> None:
    """Over HTTP the server itself refuses a call whose headers are missing."""
    async with over_http() as url:
        async with gateway_of(tmp_path, http("everything", url)) as running:
            await running.post(call("tools/list"))
            message, named = modern("tools/call", "test_x_mcp_header", arguments={"region": "ü"})
            reply = await running.post(message, **named, local_mcp_gateway_bridge="1")
            assert (await reply.json())["result"]["content"][0]["text"] == "region=ü"


SCALAR = st.text() | st.integers() | st.booleans()


@given(st.dictionaries(st.sampled_from("abc"), SCALAR), SCALAR)
def test_headers_that_the_gateway_writes_pass_its_own_check(
    arguments: dict[str, Any], inner: Any
) -> None:
    def annotated(header: str) -> dict[str, str]:
        return {"type": "string", "x-mcp-header": header}

    nested = {"type": "object", "properties": {"e": annotated("Deep")}}
    properties = {"a": annotated("A"), "b": annotated("B"), "d": nested}
    tool = encode({"name": "t", "inputSchema": {"type": "object", "properties": properties}})
    found = header_params.header_params_of(tool)
    assert {each.header for each in found} == {"mcp-param-a", "mcp-param-b", "mcp-param-deep"}
    params = encode({"name": "t", "arguments": {**arguments, "d": {"e": inner}}})
    headers = dict(header_params.headers_for(found, params))
    assert header_params.header_fault(found, headers, params) is None
    assert header_params.header_fault(
        found, {**headers, "mcp-param-deep": "?"}, params
    ) is not None or (str(inner) == "?")


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {"type": "number", "x-mcp-header": "A"}}},
        {"properties": {"a": {"type": "string", "x-mcp-header": "not a token"}}},
        {"properties": {n: {"type": "string", "x-mcp-header": "Same"} for n in "ab"}},
        {"items": {"type": "string", "x-mcp-header": "A"}},
        {"properties": {"a": {"type": "string"}}},
    ],
)
def test_an_annotation_that_is_not_valid_asks_for_nothing(schema: Any) -> None:
    assert header_params.header_params_of(encode({"name": "t", "inputSchema": schema})) == ()
