"""A server learns what all of its clients can do, and asks a client only for what that client has declared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.gateway.clients import refusal, shared
from local_mcp_gateway.gateway.clients.capabilities import MEDIATED, beyond, lacking
from tests.gateway.messages import HELLO, call
from tests.gateway.support import Running, gateway_of, stdio
from tests.gateway.using import names

UI = {"io.modelcontextprotocol/ui": {"mimeTypes": ["text/html;profile=mcp-app"]}}


def common(*clients: dict[str, Any]) -> Any:
    told = shared([json.dumps(client).encode() for client in clients])
    assert {name: told.pop(name) for name in MEDIATED} == MEDIATED
    return told


def test_a_server_is_told_what_all_of_its_clients_can_and_no_more() -> None:
    more = {**UI, "com.example/other": {}}
    one = {"elicitation": {}, "sampling": {"tools": {}}, "extensions": more, "future": {"a": 1}}
    two = {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "extensions": UI, "roots": {}}
    assert common(one) == {"extensions": more, "future": {"a": 1}}
    assert common(one, two) == {"extensions": UI}
    assert common(one, {}) == common() == {}


CAPABILITIES = st.recursive(
    st.booleans() | st.integers(0, 2) | st.none(),
    lambda inner: (
        st.dictionaries(st.sampled_from("abc"), inner, max_size=3) | st.lists(inner, max_size=2)
    ),
)
CLIENTS = st.lists(st.dictionaries(st.sampled_from("abc"), CAPABILITIES, max_size=3), min_size=1)


@given(CLIENTS)
def test_no_client_lacks_what_its_server_is_told(clients: list[dict[str, Any]]) -> None:
    told = common(*clients)
    for client in clients:
        assert not _beyond(told, client)


def test_a_client_is_beyond_what_its_server_was_told_if_that_may_ask_for_less() -> None:
    asked = {"sampling": {"tools": {}}, "elicitation": {}, "extensions": UI}
    more: list[dict[str, Any]] = [MEDIATED, asked, {"sampling": {}}, {}]
    sides = [json.dumps(side).encode() for side in more]
    assert [[beyond(told, able) for able in sides] for told in sides] == [
        [False, False, False, False],
        [True, False, False, False],
        [True, True, False, False],
        [True, True, True, False],
    ]


def _beyond(told: Any, client: Any) -> bool:
    if isinstance(told, dict):
        return any(key not in client or _beyond(value, client[key]) for key, value in told.items())
    if isinstance(told, list):
        return any(item not in client for item in told)
    return bool(told) and told != client


@pytest.mark.parametrize(
    ("declared", "method", "params", "lacks"),
    [
        ({"elicitation": {}}, "elicitation/create", {}, None),
        ({"elicitation": {}}, "elicitation/create", {"mode": "form"}, None),
        ({"elicitation": {}}, "elicitation/create", {"mode": "url"}, "elicitation.url"),
        ({"elicitation": {"url": {}}}, "elicitation/create", {"mode": "url"}, None),
        ({"elicitation": {"url": {}}}, "elicitation/create", {}, "elicitation.form"),
        ({}, "elicitation/create", {}, "elicitation"),
        ({"sampling": {}}, "sampling/createMessage", {"tools": []}, "sampling.tools"),
        ({"sampling": {}}, "sampling/createMessage", {"includeContext": "none"}, None),
        ({"sampling": {"tools": {}}}, "sampling/createMessage", {"toolChoice": {}}, None),
        ({"roots": {}}, "roots/list", {}, None),
        ({}, "com.example/ask", {}, None),
    ],
)
def test_a_client_is_asked_only_for_what_it_has_declared(
    declared: dict[str, Any], method: str, params: dict[str, Any], lacks: str | None
) -> None:
    assert lacking(json.dumps(declared).encode(), method, json.dumps(params).encode()) == lacks


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("elicitation/create", b'{"mode":"url","mode":"form"}'),
        ("elicitation/create", b'{"mode":"form","Mode":"url"}'),
        ("sampling/createMessage", b'{"Tools":[]}'),
        ("sampling/createMessage", rb'{"toolChoice":null,"tool\u0043hoice":null}'),
    ],
)
def test_a_request_that_two_clients_would_read_in_two_ways_is_refused(
    method: str, params: bytes
) -> None:
    answer = refusal(b'{"elicitation":{"form":{}},"sampling":{}}', method, params)
    assert answer is not None
    assert b"appears twice, or in another case" in bytes(answer.body)


async def opened(running: Running, capabilities: dict[str, Any]) -> str:
    """Open a session of a client that can this; return its id."""
    params = {**HELLO["params"], "capabilities": capabilities}
    return (await running.post({**HELLO, "params": params})).headers["mcp-session-id"]


def told(running: Running) -> list[Any]:
    """Return the capabilities that the server was told, handshake by handshake."""
    start = "heard initialize "
    lines = [fields["line"] for name, fields in running.said if name == "upstream.logged"]
    return [
        json.loads(line.removeprefix(start))["capabilities"]
        for line in lines
        if line.startswith(start)
    ]


SERVER = stdio("app", "scripted.py", json.dumps({"answers": {"tools/list": {"tools": []}}}))


async def test_a_server_that_was_connected_before_its_client_came_is_told_of_it(
    tmp_path: Path,
) -> None:
    async with gateway_of(tmp_path, SERVER) as running:
        assert await names(running) == []
        await opened(running, {"extensions": UI})
        await running.until(lambda: len(told(running)) == 2)
        assert told(running) == [MEDIATED, {"extensions": UI}]
        await opened(running, {"extensions": UI})
        await running.post(call("tools/call", name="x", arguments={}))
        assert len(told(running)) == 2, "a server that two clients share is not disturbed"


async def test_a_strict_server_gets_no_capability_that_its_revision_does_not_have(
    tmp_path: Path,
) -> None:
    strict = stdio("strict", "scripted.py", json.dumps({"strict": [*MEDIATED]}))
    async with gateway_of(tmp_path, strict) as running:
        await opened(running, {"extensions": UI, "sampling": {}})
        await running.heard("upstream.connected", server="strict")
        await running.until(lambda: len(told(running)) == 2)
        assert told(running) == [{"extensions": UI, "sampling": {}}, {"sampling": {}}]


async def test_clients_with_and_without_an_extension_of_a_server_are_kept_apart(
    tmp_path: Path,
) -> None:
    script: dict[str, Any] = {
        "initialize": {"capabilities": {"tools": {}, "extensions": {next(iter(UI)): {}}}}
    }
    async with gateway_of(tmp_path, stdio("app", "scripted.py", json.dumps(script))) as running:
        one = await opened(running, {"extensions": UI})
        await running.post(call("tools/call", name="x", arguments={}), mcp_session_id=one)
        assert told(running)[-1] == {"extensions": UI}
        other = await opened(running, {"roots": {}})
        await running.post(call("tools/call", name="x", arguments={}), mcp_session_id=other)
        await running.until(lambda: {"roots": {}} in told(running))
        for each in (one, other):
            await running.post(call("tools/call", name="x", arguments={}), mcp_session_id=each)
        first, *others = told(running)
        assert first == {"extensions": UI}
        assert not any("extensions" in capabilities for capabilities in others)


async def test_the_first_list_of_a_client_with_an_extension_is_what_its_server_shows_it(
    tmp_path: Path,
) -> None:
    schema = {"type": "object"}
    shown = [{"tools": [{"name": name, "inputSchema": schema}]} for name in ("text", "page")]
    script: dict[str, Any] = {
        "initialize": {"capabilities": {"tools": {}, "extensions": {next(iter(UI)): {}}}},
        "answers": {"tools/list": shown[0]},
        "able": {"extensions": {"tools/list": shown[1]}},
    }
    async with gateway_of(tmp_path, stdio("app", "scripted.py", json.dumps(script))) as running:
        one = await opened(running, {})
        assert await names(running, mcp_session_id=one) == ["text"]
        other = await opened(running, {"extensions": UI})
        assert await names(running, mcp_session_id=other) == ["page"]
        assert await names(running, mcp_session_id=one) == ["text"]


TEXT, PAGE = (
    {"tools/list": {"tools": [{"name": name, "inputSchema": {"type": "object"}}]}}
    for name in ("text", "page")
)


@pytest.mark.parametrize("able_first", [True, False])
async def test_lists_are_those_for_a_client_that_can_as_much_from_the_first_one_on(
    tmp_path: Path, *, able_first: bool
) -> None:
    server = stdio("app", "scripted.py", json.dumps({"answers": TEXT, "able": {"sampling": PAGE}}))
    clients: list[tuple[dict[str, Any], str]] = [({"sampling": {}}, "page"), ({}, "text")]
    first, second = clients if able_first else reversed(clients)
    async with gateway_of(tmp_path, server) as running:
        for capabilities, shown in (first, second, first):
            session = await opened(running, capabilities)
            assert await names(running, mcp_session_id=session) == [shown]
        await running.kept("app", '"alike":false')
    async with gateway_of(tmp_path, server) as running:  # which knows lists from before
        for capabilities, shown in (first, second):
            session = await opened(running, capabilities)
            assert await names(running, mcp_session_id=session) == [shown]


async def test_clients_share_a_server_again_once_its_lists_are_seen_to_be_the_same(
    tmp_path: Path,
) -> None:
    server = stdio("app", "scripted.py", json.dumps({"answers": TEXT}))
    use = call("tools/call", name="text", arguments={})
    async with gateway_of(tmp_path, server) as running:
        one = await opened(running, {"roots": {}})
        await running.post(use, mcp_session_id=one)
        other = await opened(running, {"sampling": {}})
        await running.post(use, mcp_session_id=other)
        await running.kept("app", '"alike":true')
        more: list[dict[str, Any]] = [{}, {"elicitation": {}}]
        for capabilities in more:
            session = await opened(running, capabilities)
            await running.post(use, mcp_session_id=session)
        for each in (one, other):
            await running.post(use, mcp_session_id=each)
        first, second, *others = told(running)
        assert (first, second) == ({"roots": {}}, {"sampling": {}})
        assert others == [MEDIATED], "all but the first share the third one"
