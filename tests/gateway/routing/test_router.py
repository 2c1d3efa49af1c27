"""What passes through the gateway arrives as it was sent, but for a closed list of members."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from local_mcp_gateway.store import queries
from local_mcp_gateway.store.model import ServerDefinition, ToolSetting
from tests.gateway.messages import HELLO, META, MODERN, call
from tests.gateway.support import SERVERS, gateway_of, http, process, stdio
from tests.gateway.using import events, names, session, use

ODD = '{"name":"raw","arguments":{ "f": 1.0,"e":1e3, "u":"\\u00e9\\/","é": [ ]}, "later": {"x" :null}}'


async def test_params_and_results_keep_every_byte(tmp_path: Path) -> None:
    async with process(SERVERS / "plain_http.py") as (_, url):
        servers = stdio("plain", "plain.py"), http("web", url)
        async with gateway_of(tmp_path, *servers) as running:
            await running.post(call("tools/list"))
            for name in ("raw", "web__raw"):
                params = ODD.replace('"raw"', f'"{name}"')
                body = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":' + params + "}"
                headers = {"Content-Type": "application/json", "Accept": "application/json"}
                async with running.http.post(
                    running.url, data=body.encode(), headers=headers
                ) as reply:
                    answer = await reply.text()
                text = json.loads(answer)["result"]["content"][0]["text"]
                received = text[text.index('"params":') + 9 : -1]
                if name == "raw":
                    assert received == ODD
                    expected = json.dumps({"content": [{"type": "text", "text": text}]})
                    assert answer == '{"jsonrpc":"2.0","id":1,"result":' + expected + "}"
                else:
                    assert '{ "f": 1.0,"e":1e3, "u":"\\u00e9\\/","é": [ ]}' in received
                    assert '{"x" :null}' in received


async def test_an_error_passes_with_its_code_and_data(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        body = await (await running.post(call("tools/call", name="fail", arguments={}))).json()
        assert body["error"] == {"code": -32050, "message": "failed", "data": {"why": [1, 2]}}


@pytest.mark.parametrize("token", ["mine", 5])
async def test_progress_comes_before_the_answer_with_the_clients_own_token(
    tmp_path: Path, token: Any
) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        meta = {"progressToken": token}
        message = call("tools/call", name="progress", arguments={}, _meta=meta)
        one, two, answer = await events(running, message)
        assert one["params"] == {"progressToken": token, "progress": 1, "total": 2}
        assert two["params"]["progress"] == 2
        assert answer["result"]["content"]


async def test_a_cancelled_call_is_cancelled_at_the_server_and_gets_no_answer(
    tmp_path: Path,
) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        headers = await session(running)
        message = call("tools/call", 77, name="sleep", arguments={"seconds": 60})
        sleeping = asyncio.create_task(running.post(message, **headers))
        await running.wrote("sleeping ")
        stop = {
            "jsonrpc": "2.0",
            "method": "notifications/cancelled",
            "params": {"requestId": 77, "reason": "enough"},
        }
        assert (await running.post(stop, **headers)).status == 202
        answered = await sleeping
        assert (answered.status, await answered.read()) == (202, b""), "no answer"
        await running.wrote("cancelled ")


async def test_a_client_that_leaves_cancels_its_call(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        message = call("tools/call", 77, name="sleep", arguments={"seconds": 60})
        sleeping = asyncio.create_task(running.post(message))
        await running.wrote("sleeping ")
        sleeping.cancel()
        await running.wrote("cancelled ")
        assert (await running.heard("call.finished", target="sleep"))["status"] == "cancelled"


async def test_a_hundred_calls_at_once_are_never_crossed(tmp_path: Path) -> None:
    async with process(SERVERS / "plain_http.py") as (_, url):
        async with gateway_of(tmp_path, stdio("plain", "plain.py"), http("web", url)) as running:

            async def one(number: int) -> None:
                tool = "web__raw" if number % 2 else "raw"
                message = call("tools/call", 1, name=tool, arguments={"n": number})
                body = await (await running.post(message)).json()
                received = json.loads(body["result"]["content"][0]["text"])
                assert received["params"]["arguments"] == {"n": number}

            await asyncio.gather(*(one(number) for number in range(100)))


async def test_a_tool_that_says_something_else_than_before_is_told(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        await running.post(call("tools/call", name="grow", arguments={"name": "harmless"}))
        await running.post(call("tools/call", name="grow", arguments={"name": "changed"}))
        told = await running.heard("catalog.altered")
        assert told == {"server": "plain", "tools": ["echo"], "held": False}


async def test_an_unknown_method_goes_where_its_name_or_uri_leads(tmp_path: Path) -> None:
    one, two = stdio("one", "verbatim.py"), stdio("two", "verbatim.py")
    async with gateway_of(tmp_path, one, two) as running:
        assert await names(running) == ["same", "told", "two__same", "two__told"]
        message = call("extra/thing", name="two__same", _meta={"result": b"7".hex()})
        assert (await (await running.post(message)).json())["result"] == 7
        assert await use(running, "told") == ""
        told = json.loads(bytes.fromhex(await use(running, "two__told")))
        assert (told["method"], told["params"]["name"]) == ("extra/thing", "same")
        for stray in ({}, {"name": "nobody"}, {"uri": "no://where"}):
            unknown = await (await running.post(call("extra/thing", **stray))).json()
            assert unknown["error"]["code"] == -32601


def app(name: str, page: str) -> ServerDefinition:
    """Define a server with an app at the same address as every other one, which it does not list."""
    uri = "ui://app/main.html"
    tool = {
        "name": "show",
        "inputSchema": {"type": "object"},
        "_meta": {"ui": {"resourceUri": uri}},
    }
    own = {"name": f"{name}.more", "inputSchema": {"type": "object"}}
    link = {"type": "resource_link", "uri": uri, "name": "page"}
    said = {"type": "text", "text": uri}
    script = {
        "initialize": {"capabilities": {"tools": {}, "resources": {}}},
        "answers": {
            "tools/list": {"tools": [tool, own]},
            "tools/call": {"content": [link, said], "_meta": {"ui": {"resourceUri": uri}}},
            "resources/list": {"resources": []},
            "resources/read": {"contents": [{"uri": uri, "text": page}]},
        },
    }
    return stdio(name, "scripted.py", json.dumps(script))


async def test_each_server_shows_its_own_app_although_two_have_the_same_address(
    tmp_path: Path,
) -> None:
    async with gateway_of(tmp_path, app("one", "page 1"), app("two", "page 2")) as running:
        body = await (await running.post(call("tools/list"))).json()
        tools = {tool["name"]: tool for tool in body["result"]["tools"]}
        for name, page in (("show", "page 1"), ("two__show", "page 2")):
            uri = tools[name]["_meta"]["ui"]["resourceUri"]
            assert uri.startswith("ui://")
            body = await (await running.post(call("resources/read", uri=uri))).json()
            assert body["result"]["contents"] == [{"uri": uri, "text": page}]
            called = await (await running.post(call("tools/call", name=name, arguments={}))).json()
            link, said = called["result"]["content"]
            assert link["uri"] == called["result"]["_meta"]["ui"]["resourceUri"] == uri
            assert said["text"] == "ui://app/main.html", "what a person reads is not touched"


async def test_an_app_calls_the_tools_of_its_server_by_their_own_names(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, app("one", ""), app("two", "")) as running:
        assert await names(running) == ["show", "one_more", "two__show", "two_more"]
        for name in ("one.more", "two.more"):
            body = await (await running.post(call("tools/call", name=name, arguments={}))).json()
            assert "result" in body
            await running.heard("call.finished", server=name.removesuffix(".more"), target=name)


def scripted(name: str, initialize: dict[str, Any], **answers: Any) -> ServerDefinition:
    script = {"initialize": initialize, "answers": answers}
    return stdio(name, "scripted.py", json.dumps(script))


async def test_the_first_session_already_knows_what_its_servers_say_of_themselves(
    tmp_path: Path,
) -> None:
    servers = (
        scripted("one", {"instructions": "Ask me.", "capabilities": {"extensions": {"x/y": {}}}}),
        scripted("two", {"instructions": "Or me."}),
    )
    async with gateway_of(tmp_path, *servers) as running:
        result = (await (await running.post(HELLO)).json())["result"]
        assert result["instructions"] == "# one\nAsk me.\n\n# two\nOr me."
        assert result["capabilities"] == {"extensions": {"x/y": {}}, "tools": {"listChanged": True}}


async def test_an_unknown_method_goes_to_the_server_that_declares_what_it_is_named_after(
    tmp_path: Path,
) -> None:
    extension: dict[str, Any] = {"capabilities": {"extensions": {"com.example/shop": {}}}}
    servers = (
        scripted("none", {}),
        scripted("shop", extension, **{"shop/buy": {"bought": 1}}),
        scripted("other", {"capabilities": {"experimental": {"trial": {}}}}),
    )
    async with gateway_of(tmp_path, *servers) as running:
        headers = await session(running)
        body = await (await running.post(call("shop/buy"), **headers)).json()
        assert body["result"] == {"bought": 1}
        message = {"jsonrpc": "2.0", "method": "notifications/trial/begun", "params": {"n": 1}}
        await running.post(message, **headers)
        line = 'heard notifications/trial/begun {"n": 1}'
        heard = await running.heard("upstream.logged", line=line)
        assert heard["server"] == "other"
        assert (await (await running.post(call("what/ever"), **headers)).json())["error"][
            "code"
        ] == -32601


async def test_a_list_for_a_stateless_client_says_who_lists_it_and_for_how_long(
    tmp_path: Path,
) -> None:
    tools = {"tools": [{"name": "a", "inputSchema": {"type": "object"}}]}
    quick = {"resources": [{"uri": "it://1", "name": "it"}], "ttlMs": 60000, "cacheScope": "public"}
    capabilities: dict[str, Any] = {"capabilities": {"tools": {}, "resources": {}}}
    lists = {"tools/list": tools, "resources/list": quick}
    async with gateway_of(tmp_path, scripted("one", capabilities, **lists)) as running:
        results = {}
        for method in lists:
            headers = {"mcp_method": method, "mcp_protocol_version": MODERN}
            reply = await running.post(call(method, _meta=META), **headers)
            results[method] = (await reply.json())["result"]
            info = results[method]["_meta"]["io.modelcontextprotocol/serverInfo"]
            assert info["name"] == "local-mcp-gateway"
            assert results[method]["cacheScope"] == "private"
        assert results["tools/list"]["ttlMs"] == 0
        assert 0 < results["resources/list"]["ttlMs"] <= 60000


async def test_a_server_alone_in_its_profile_gets_everything(tmp_path: Path) -> None:
    read = {"contents": [{"uri": "it://1", "text": "here"}]}
    completed = {"completion": {"values": ["x"]}}
    answers: dict[str, Any] = {
        "resources/read": read,
        "completion/complete": completed,
        "logging/setLevel": {},
    }
    async with gateway_of(tmp_path, scripted("alone", {}, **answers)) as running:
        headers = await session(running)
        ref = {"type": "ref/prompt", "name": "p"}
        asked: dict[str, dict[str, Any]] = {
            "resources/read": {"uri": "it://1"},
            "completion/complete": {"ref": ref, "argument": {"name": "a", "value": ""}},
            "logging/setLevel": {"level": "info"},
        }
        for method, params in asked.items():
            body = await (await running.post(call(method, **params), **headers)).json()
            assert body["result"] == answers[method], method
            await running.wrote(f"heard {method}")


async def test_without_a_server_that_logs_there_is_no_log_level(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, scripted("one", {}), scripted("two", {})) as running:
        headers = await session(running)
        body = await (await running.post(call("logging/setLevel", level="info"), **headers)).json()
        assert body["error"]["code"] == -32601


async def test_a_reload_announces_only_the_lists_that_are_others(tmp_path: Path) -> None:
    lists = {
        "tools/list": {"tools": [{"name": "a", "inputSchema": {"type": "object"}}]},
        "prompts/list": {"prompts": [{"name": "p"}]},
    }
    both: dict[str, Any] = {"capabilities": {"tools": {}, "prompts": {}}}
    async with gateway_of(tmp_path, scripted("one", both, **lists)) as running:
        await session(running)
        assert await names(running) == ["a"]
        await running.kept("one")
        (one,) = running.gateway.sessions
        one.take()
        setting = ToolSetting("one", "a", enabled=False)
        await queries.set_tool(running.database, "default", setting)
        await running.gateway.reload()
        told = [json.loads(message)["method"] for _, message in one.take()]
        assert told == ["notifications/tools/list_changed"]
