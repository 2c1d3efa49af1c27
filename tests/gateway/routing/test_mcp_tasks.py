"""A request about a task goes to the server that made the task, however many servers there are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from local_mcp_gateway.gateway.routing.mcp_tasks import shown_tasks
from local_mcp_gateway.store.model import ServerDefinition
from tests.gateway.messages import HELLO, META, MODERN, call
from tests.gateway.support import Running, gateway_of, http, serve, stdio
from tests.gateway.using import names

DATE = "2026-01-01T00:00:00Z"


def task(identity: str) -> dict[str, Any]:
    return {
        "taskId": identity,
        "status": "working",
        "createdAt": DATE,
        "lastUpdatedAt": DATE,
        "ttl": 60000,
    }


def server(name: str, *identities: str, **answers: Any) -> ServerDefinition:
    """Define a server whose tool makes a task, and which lists these tasks."""
    tool = {
        "name": f"{name}-long",
        "inputSchema": {"type": "object"},
        "execution": {"taskSupport": "required"},
    }
    capabilities: dict[str, Any] = {
        "tools": {},
        "tasks": {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}},
    }
    related = {"io.modelcontextprotocol/related-task": {"taskId": identities[0]}}
    script = {
        "initialize": {"capabilities": capabilities},
        "answers": {
            "tools/list": {"tools": [tool]},
            "tools/call": {"task": task(identities[0])},
            "tasks/get": task(identities[0]),
            "tasks/result": {"content": [{"type": "text", "text": name}], "_meta": related},
            "tasks/cancel": {**task(identities[0]), "status": "cancelled"},
            "tasks/list": {"tasks": [task(identity) for identity in identities]},
            **answers,
        },
    }
    return stdio(name, "scripted.py", json.dumps(script))


async def session(running: Running) -> dict[str, str]:
    params = {**HELLO["params"], "protocolVersion": "2025-11-25"}
    reply = await running.post({**HELLO, "params": params})
    return {"mcp_session_id": reply.headers["mcp-session-id"]}


async def result(running: Running, method: str, headers: dict[str, str], **params: Any) -> Any:
    body = await (await running.post(call(method, **params), **headers)).json()
    return body.get("result") or body["error"]


async def test_a_task_is_found_at_its_server_also_after_a_restart(tmp_path: Path) -> None:
    servers = server("one", "t1"), server("two", "t1")
    async with gateway_of(tmp_path, *servers) as running:
        await running.post(call("tools/list"))
        headers = await session(running)
        made = await result(
            running, "tools/call", headers, name="two-long", arguments={}, task={"ttl": 60000}
        )
        identity = made["task"]["taskId"]
    async with gateway_of(tmp_path, *servers) as running:
        headers = await session(running)
        got = await result(running, "tasks/get", headers, taskId=identity)
        assert got == {**task("t1"), "taskId": identity}
        await running.heard(
            "upstream.logged", server="two", line='heard tasks/get {"taskId": "t1"}'
        )
        end = await result(running, "tasks/result", headers, taskId=identity)
        assert end["content"][0]["text"] == "two"
        assert end["_meta"]["io.modelcontextprotocol/related-task"] == {"taskId": identity}
        cancelled = await result(running, "tasks/cancel", headers, taskId=identity)
        assert (cancelled["taskId"], cancelled["status"]) == (identity, "cancelled")
        for unknown in ("t1", "three:t1", ""):
            assert (await result(running, "tasks/get", headers, taskId=unknown))["code"] == -32602


async def test_the_tasks_of_all_servers_are_listed_page_by_page(tmp_path: Path) -> None:
    more = {"tasks/list": {"tasks": [task("t2"), task("t3")], "nextCursor": "p:2"}}
    plain = stdio("plain", "plain.py")
    servers = server("one", "t1"), plain, server("two", "t2", **more), server("three", "t4")
    async with gateway_of(tmp_path, *servers) as running:
        await running.post(call("tools/list"))
        headers = await session(running)
        page = await result(running, "tasks/list", headers)
        assert [each["taskId"] for each in page["tasks"]] == ["one:t1", "two:t2", "two:t3"]
        assert page["nextCursor"] == "two:p:2"
        page = await result(running, "tasks/list", headers, cursor=page["nextCursor"])
        assert page["nextCursor"] == "two:p:2", "as the server said"
        await running.heard("call.finished", method="tasks/list", server="two")
        unknown = await result(running, "tasks/list", headers, cursor="nobody:1")
        assert unknown["code"] == -32602


async def test_a_tool_that_only_runs_as_a_task_is_listed_for_clients_that_know_tasks(
    tmp_path: Path,
) -> None:
    async with gateway_of(tmp_path, server("one", "t1"), stdio("plain", "plain.py")) as running:
        assert "one-long" not in await names(running)
        old = await running.post(HELLO)
        headers = {"mcp_session_id": old.headers["mcp-session-id"]}
        listed = await result(running, "tools/list", headers)
        assert "one-long" not in [tool["name"] for tool in listed["tools"]]
        listed = await result(running, "tools/list", await session(running))
        assert "one-long" in [tool["name"] for tool in listed["tools"]]


async def test_without_a_server_that_has_tasks_nothing_is_known_of_them(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        for method in ("tasks/get", "tasks/list"):
            assert (await result(running, method, {}, taskId="t"))["code"] == -32601


@pytest.mark.parametrize(
    "body",
    [
        b'{"content":[],"structuredContent":{"taskId":"t1","task":{"taskId":"t1"}}}',
        b'{"taskId":5,"task":"t1","tasks":{"taskId":"t1"}}',
    ],
)
def test_what_is_no_id_of_a_task_keeps_its_bytes(body: bytes) -> None:
    assert json.loads(shown_tasks("one", body)) == json.loads(body)


def test_a_server_names_no_task_of_another_one_by_writing_its_members_in_escapes() -> None:
    body = rb'{"task":{"task\u0049d":"two:t1","status":"working"}}'
    shown = json.loads(shown_tasks("one", body))
    assert shown["task"]["taskId"] == "one:two:t1"


EXTENSION: dict[str, Any] = {"extensions": {"io.modelcontextprotocol/tasks": {}}}


class Stateless:
    """A stateless server with the extension; it keeps the headers of each request."""

    def __init__(self) -> None:
        self.named: dict[str, str | None] = {}

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        message = json.loads((await receive())["body"] or b"{}")
        method = message.get("method", "")
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.named[method] = headers.get("mcp-name")
        answers: dict[str, Any] = {
            "server/discover": {
                "supportedVersions": [MODERN],
                "capabilities": {"tools": {}, **EXTENSION},
            },
            "tools/list": {"tools": [{"name": "long", "inputSchema": {"type": "object"}}]},
            "tools/call": {"resultType": "task", "taskId": "t:1", "status": "working"},
            "tasks/get": {"resultType": "complete", "taskId": "t:1", "status": "completed"},
            "tasks/update": {"resultType": "complete"},
            "tasks/cancel": {"resultType": "complete"},
        }
        error = {"error": {"code": -32601, "message": f"no {method}"}}
        answer = {"result": answers[method]} if method in answers else error
        body = json.dumps({"jsonrpc": "2.0", "id": message.get("id"), **answer}).encode()
        kind = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": kind})
        await send({"type": "http.response.body", "body": body})


async def test_a_task_of_the_extension_is_asked_for_by_the_header_that_it_demands(
    tmp_path: Path,
) -> None:
    there = Stateless()
    meta = {**META, "io.modelcontextprotocol/clientCapabilities": EXTENSION}

    async def asked(running: Running, method: str, shown: str, /, **params: Any) -> Any:
        headers = {"mcp_method": method, "mcp_protocol_version": MODERN, "mcp_name": shown}
        reply = await running.post(call(method, **params, _meta=meta), **headers)
        return await reply.json()

    async with serve(there) as url:
        servers = stdio("plain", "plain.py"), http("two", url + "/mcp")
        async with gateway_of(tmp_path, *servers) as running:
            await running.post(call("tools/list"))
            made = await asked(running, "tools/call", "long", name="long", arguments={})
            identity = made["result"]["taskId"]
            assert (identity, made["result"]["resultType"]) == ("two:t:1", "task")
            got = await asked(running, "tasks/get", identity, taskId=identity)
            assert (got["result"]["taskId"], there.named["tasks/get"]) == (identity, "t:1")
            for method in ("tasks/update", "tasks/cancel"):
                assert "result" in await asked(running, method, identity, taskId=identity)
                assert there.named[method] == "t:1"
            wrong = await asked(running, "tasks/get", "two:t:2", taskId=identity)
            assert wrong["error"]["code"] == -32020
