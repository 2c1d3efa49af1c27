"""The HTTP endpoints, as curl sees them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.messages import HELLO, META, MODERN, call
from tests.gateway.support import QUICK, Running, gateway_of, stdio
from tests.gateway.using import session


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        yield running


async def test_initialize_opens_a_session_in_the_offered_version(running: Running) -> None:
    reply = await running.post(HELLO)
    result = (await reply.json())["result"]
    assert reply.headers["mcp-session-id"]
    assert result["protocolVersion"] == "2025-06-18"
    assert result["serverInfo"]["name"] == "local-mcp-gateway"
    unknown = {**HELLO, "params": {**HELLO["params"], "protocolVersion": "1999-01-01"}}
    result = (await (await running.post(unknown)).json())["result"]
    assert result["protocolVersion"] == "2025-11-25"


async def test_an_answer_carries_the_id_exactly_as_the_client_wrote_it(running: Running) -> None:
    headers = await session(running)
    for identity in ("a-ü", 7, 1.5, "7"):
        reply = await running.post(call("ping", identity), **headers)
        assert await reply.json() == {"jsonrpc": "2.0", "id": identity, "result": {}}


async def test_curl_may_call_without_a_session(running: Running) -> None:
    reply = await running.post(call("tools/list"))
    names = [tool["name"] for tool in (await reply.json())["result"]["tools"]]
    assert names[:3] == ["echo", "raw", "pid"]


async def test_a_session_that_is_unknown_or_ended_is_not_found(running: Running) -> None:
    assert (await running.post(call("ping"), mcp_session_id="nobody")).status == 404
    headers = await session(running)
    identity = {"Mcp-Session-Id": headers["mcp_session_id"]}
    async with running.http.delete(running.url, headers=identity) as reply:
        assert reply.status == 200
    assert (await running.post(call("ping"), **headers)).status == 404
    greeted = await running.post(HELLO, **headers)
    assert greeted.headers["mcp-session-id"] != headers["mcp_session_id"]


async def test_the_only_profile_needs_no_name(tmp_path: Path) -> None:
    named = replace(QUICK, default_profile="elsewhere")
    async with gateway_of(tmp_path, stdio("plain", "plain.py"), options=named) as running:
        api = running.url.replace("/mcp", "/api/mcp/gateway")
        for url in (running.url, f"{running.url}/default", api):
            async with running.http.post(url, json=call("ping")) as reply:
                assert await reply.json() == {"jsonrpc": "2.0", "id": 1, "result": {}}


async def test_a_mistyped_profile_is_told_which_there_are(running: Running) -> None:
    root = running.url.rpartition("/mcp")[0]
    async with running.http.post(f"{root}/mcp/wrok", json=call("ping")) as reply:
        assert reply.status == 404
        message = (await reply.json())["error"]["message"]
    assert message.startswith("Nothing is served at /mcp/wrok; there is /mcp/")


async def test_a_session_belongs_to_its_profile(running: Running) -> None:
    headers = await session(running)
    assert (await running.post(call("ping"), path="/mcp/default", **headers)).status == 200
    assert (await running.post(call("ping"), path="/mcp/other", **headers)).status == 404


@pytest.mark.parametrize("path", ["/mcp", "/mcp/default", "/api/mcp/gateway", "/api/mcp/default"])
async def test_every_path_shows_the_profile(running: Running, path: str) -> None:
    reply = await running.post(call("ping"), path=path)
    assert (await reply.json())["result"] == {}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b"[]", -32600),
        (b'{"id":1}', -32600),
        (b"5", -32600),
        (b"", -32700),
    ],
)
async def test_what_is_no_message_is_a_bad_request(
    running: Running, body: bytes, code: int
) -> None:
    headers = {"Content-Type": "application/json"}
    async with running.http.post(running.url, data=body, headers=headers) as reply:
        assert reply.status == 400
        error = await reply.json()
    assert (error["id"], error["error"]["code"]) == (None, code)


@pytest.mark.parametrize(
    "odd",
    [
        {"method": ""},
        {"method": None},
        {"method": "", "params": {"name": "echo"}},
        {"params": {}},
        {},
    ],
)
@pytest.mark.parametrize("identity", [1, "", "a"])
async def test_what_has_an_id_and_is_neither_request_nor_response_is_refused_under_that_id(
    running: Running, odd: dict[str, Any], identity: object
) -> None:
    old = await running.post(call("initialize", protocolVersion="2025-03-26", capabilities={}))
    message = {"jsonrpc": "2.0", "id": identity, **odd}
    in_session = {"mcp_session_id": old.headers["mcp-session-id"]}
    stateless = {"mcp_protocol_version": MODERN, "mcp_method": "x"}
    for headers in ({}, in_session, stateless):
        reply = await running.post(message, **headers)
        answer = await reply.json()
        assert (reply.status, answer["id"], answer["error"]["code"]) == (400, identity, -32600)
    (answer,) = await (await running.post([message], **in_session)).json()
    assert (answer["id"], answer["error"]["code"]) == (identity, -32600)


async def test_an_unknown_protocol_version_is_a_bad_request(running: Running) -> None:
    reply = await running.post(call("ping"), mcp_protocol_version="1999-01-01")
    assert reply.status == 400


async def test_notifications_and_answers_are_accepted(running: Running) -> None:
    headers = await session(running)
    message = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert (await running.post(message, **headers)).status == 202
    assert (await running.post({**message, "id": None}, **headers)).status == 202
    assert (await running.post({"jsonrpc": "2.0", "id": 9, "result": {}}, **headers)).status == 202


async def test_an_unknown_tool_is_an_error_of_the_client(running: Running) -> None:
    error = (await (await running.post(call("tools/call", name="nope"))).json())["error"]
    assert error == {"code": -32602, "message": "Unknown tool: nope"}
    error = (await (await running.post(call("tools/call", name=5))).json())["error"]
    assert error["code"] == -32602


async def test_a_method_that_nobody_knows_goes_to_the_only_server(running: Running) -> None:
    assert "result" in await (await running.post(call("experimental/thing", x=1))).json()
    error = (await (await running.post(call("experimental/other"))).json())["error"]
    assert error == {"code": -32601, "message": "no experimental/other"}


# --- the stateless era --------------------------------------------------------------------------


async def modern(running: Running, method: str, **params: Any) -> tuple[int, Any]:
    name = params.get("name", params.get("uri"))
    headers = {"mcp_protocol_version": MODERN, "mcp_method": method}
    if name is not None:
        headers["mcp_name"] = name
    reply = await running.post(call(method, **params, _meta=META), **headers)
    return reply.status, await reply.json()


async def test_discover_names_the_stateless_versions(running: Running) -> None:
    status, body = await modern(running, "server/discover")
    assert status == 200
    assert body["result"]["supportedVersions"] == [MODERN]
    assert body["result"]["resultType"] == "complete"


async def test_a_stateless_call_is_translated_for_a_handshake_server(running: Running) -> None:
    status, body = await modern(running, "tools/call", name="raw", arguments={"a": 1})
    assert status == 200
    assert body["result"]["resultType"] == "complete"
    received = json.loads(body["result"]["content"][0]["text"])
    assert received["params"] == {"name": "raw", "arguments": {"a": 1}}


async def test_a_stateless_list_says_how_long_it_may_be_kept(running: Running) -> None:
    _, body = await modern(running, "tools/list")
    assert body["result"]["resultType"] == "complete"
    assert body["result"]["cacheScope"] == "private"
    assert len(body["result"]["tools"]) == 13


async def test_a_stateless_request_whose_headers_disagree_is_refused(running: Running) -> None:
    message = call("tools/call", name="echo", _meta=META)
    headers = {"mcp_protocol_version": MODERN, "mcp_method": "tools/call", "mcp_name": "raw"}
    reply = await running.post(message, **headers)
    assert (reply.status, (await reply.json())["error"]["code"]) == (400, -32020)
    reply = await running.post(message, mcp_protocol_version=MODERN, mcp_method="tools/list")
    assert (reply.status, (await reply.json())["error"]["code"]) == (400, -32020)


async def test_white_space_around_a_header_does_not_belong_to_it(running: Running) -> None:
    """RFC 9110, 5.5."""
    message = call("tools/call", name="echo", arguments={}, _meta=META)
    headers = {"mcp_protocol_version": f" {MODERN}\t", "mcp_method": "tools/call  "}
    reply = await running.post(message, **headers, mcp_name="\t echo ")
    assert (reply.status, "result" in await reply.json()) == (200, True)


async def test_a_stateless_request_without_its_envelope_is_refused(running: Running) -> None:
    headers = {"mcp_protocol_version": MODERN, "mcp_method": "tools/list"}
    reply = await running.post(call("tools/list"), **headers)
    assert (reply.status, (await reply.json())["error"]["code"]) == (400, -32602)


async def test_a_newer_stateless_version_is_told_what_is_served(running: Running) -> None:
    meta = {**META, "io.modelcontextprotocol/protocolVersion": "2030-01-01"}
    headers = {"mcp_protocol_version": "2030-01-01", "mcp_method": "tools/list"}
    reply = await running.post(call("tools/list", _meta=meta), **headers)
    error = (await reply.json())["error"]
    assert (reply.status, error["code"], error["data"]["supported"]) == (400, -32022, [MODERN])


async def test_an_unknown_stateless_method_is_not_found(running: Running) -> None:
    status, body = await modern(running, "experimental/other")
    assert (status, body["error"]["code"]) == (404, -32601)


async def test_a_batch_is_answered_as_one_where_the_revision_has_batches(running: Running) -> None:
    params = {**HELLO["params"], "protocolVersion": "2025-03-26"}
    hello = await running.post({**HELLO, "params": params})
    headers = {"mcp_session_id": hello.headers["mcp-session-id"]}
    note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    echo = call("tools/call", "two", name="echo", arguments={"a": 1})
    reply = await running.post([call("ping", 1), note, echo], **headers)
    answers = {answer["id"]: answer["result"] for answer in await reply.json()}
    assert answers[1] == {}
    assert answers["two"]["content"][0]["text"] == '{"a": 1}'
    assert (await running.post([note], **headers)).status == 202
    newer = await running.post([call("ping", 1)], **await session(running))
    assert newer.status == 400


async def test_a_stateless_request_without_its_version_header_is_told_so(running: Running) -> None:
    message = call("tools/list", _meta=META)
    reply = await running.post(message)
    error = (await reply.json())["error"]
    assert (reply.status, error["code"]) == (400, -32020)
    assert error["message"].startswith("mcp-protocol-version header does not match")
    in_a_session = await running.post(message, **await session(running))
    assert "tools" in (await in_a_session.json())["result"]
    greeting = {**HELLO, "params": {**HELLO["params"], "_meta": META}}
    assert (await running.post(greeting)).headers["mcp-session-id"]


async def test_a_header_that_is_sent_twice_alike_counts_once(running: Running) -> None:
    twice = [("MCP-Protocol-Version", "2025-06-18"), ("Content-Type", "application/json")] * 2
    body = json.dumps(call("ping"))
    async with running.http.post(running.url, data=body, headers=twice) as reply:
        assert (await reply.json())["result"] == {}


@pytest.mark.parametrize("accept", ["*/*", "text/event-stream", "text/*, application/json"])
async def test_who_takes_anything_gets_the_stream_of_its_session(
    running: Running, accept: str
) -> None:
    asked = {"Mcp-Session-Id": (await session(running))["mcp_session_id"]}
    async with running.http.get(running.url, headers={**asked, "Accept": accept}) as reply:
        assert (reply.status, reply.content_type) == (200, "text/event-stream")
    async with running.http.get(running.url, headers={**asked, "Accept": "text/html"}) as reply:
        assert reply.status == 406
