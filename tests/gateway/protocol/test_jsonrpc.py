"""A message that two programs would read as two is refused; any other passes, however it is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.gateway.catalog import header_params_of, twice_in_arguments
from local_mcp_gateway.gateway.protocol import jsonrpc
from local_mcp_gateway.gateway.protocol.jsonrpc import INSIDE, PARAMS, ambiguity, decode_envelope
from local_mcp_gateway.store import queries
from local_mcp_gateway.store.model import ToolSetting
from tests.gateway.messages import HELLO, call
from tests.gateway.support import Running, gateway_of, stdio
from tests.gateway.using import Stream

VALUES = st.recursive(
    st.none() | st.integers() | st.text('a\\"u{}[],: é', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
WRITTEN = st.tuples(
    st.sampled_from([",", ", ", " ,\n"]), st.sampled_from([":", ": ", "\t: "]), st.booleans()
)


def written(members: list[tuple[str, str]], how: tuple[str, str, bool]) -> str:
    """Write a JSON object of names and values in JSON, a member for each pair."""
    comma, colon, ascii_only = how
    names = (json.dumps(name, ensure_ascii=ascii_only) for name, _ in members)
    parts = (name + colon + value for name, (_, value) in zip(names, members, strict=True))
    return "{" + comma.join(parts) + "}"


def refused(text: str) -> bool:
    body = text.encode()
    return ambiguity(body, decode_envelope(body)) is not None


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*PARAMS.exact, "x", "é", "a\\b", "n\u0000"])
            | st.text('naemé\\"', max_size=4),
            VALUES,
        ),
        max_size=6,
    ),
    st.lists(st.tuples(st.sampled_from(["later", "x", "é"]), VALUES), max_size=2),
    WRITTEN,
    st.booleans(),
)
def test_what_says_a_name_twice_by_which_is_routed_is_refused_and_what_says_each_once_is_not(
    members: list[tuple[str, Any]],
    more: list[tuple[str, Any]],
    how: tuple[str, str, bool],
    spaced: bool,
) -> None:
    separators = (", ", ": ") if spaced else (",", ":")

    def texts(pairs: list[tuple[str, Any]]) -> list[tuple[str, str]]:
        inside = [(k, {"x": v} if k in INSIDE else v) for k, v in pairs]
        return [(name, json.dumps(value, separators=separators)) for name, value in inside]

    params = written(texts(members), how)
    whole = [("jsonrpc", '"2.0"'), ("id", "1"), ("method", '"a/b"'), ("params", params)]
    text = written([*whole, *texts(more)], how)
    names, top = [name for name, _ in members], [name for name, _ in more]
    twice = [name for name in PARAMS.exact if names.count(name) > 1]
    alike = [n for n in names if n not in PARAMS.exact and n.casefold() in PARAMS.folded]
    once = len(set(names)) == len(names) and len(set(top)) == len(top)
    if twice or alike:
        assert refused(text)
    elif once:
        assert not refused(text)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('{"jsonrpc":"2.0","id":1,"id":2,"method":"a"}', -32600),
        ('{"jsonrpc":"2.0","id":1,"ID":1,"method":"a"}', -32600),
        ('{"jsonrpc":"2.0","id":1,"method":"ping","method":"a"}', -32600),
        ('{"jsonrpc": "2.0", "id": 1, "method": "ping", "Method": "a"}', -32600),
        ('{"jsonrpc":"2.0","id":1,"method":"a","params":{},"Param\u017f":{}}', -32600),
        ('{"jsonrpc":"2.0","id":1,"method":"a","m\\u0065thod":"a"}', -32600),
        ('{"jsonrpc":"2.0","id":1,"result":{},"result":{"a":1}}', -32600),
        ('{"jsonrpc":"2.0","id":1,"result":{},"Error":{}}', -32600),
        ('{"jsonrpc":"2.0","id":1,"method":"a","params":{"name":"a","name":"b"}}', -32602),
        ('{"jsonrpc":"2.0","id":1,"method":"a","params":{"name":1,"name":12}}', -32602),
        ('{"jsonrpc":"2.0","id":1,"method":"a","params":{"name":12,"name":1}}', -32602),
        ('{"jsonrpc":"2.0","id":1,"method":"a","params":{"name":12, "name":1}}', -32602),
        ('{"jsonrpc":"2.0","id":1,"method":"a","params":{"name":"a","n\\u0061me":"b"}}', -32602),
        (
            '{"jsonrpc":"2.0","id":1,"method":"a","params":{"":1,"":1,"name":1,"name":2,"ref":{}}}',
            -32602,
        ),
        ('{"jsonrpc":"2.0","id":1,"method":"a","params":{"NAME":"a"}}', -32602),
        ('{"jsonrpc":"2.0","id":1,"method":"a","params":{"tas\u212aId":"a"}}', -32602),
        ('{"jsonrpc":"2.0","id":1,"method":"a","params":{"ref":{"name":"a","Name":"b"}}}', -32602),
        ('{"jsonrpc":"2.0","id":1,"method":"a","params":{"ref":{"uri":"a","uri":"a"}}}', -32602),
        ('{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestID":1}}', -32602),
        (
            '{"jsonrpc":"2.0","id":1,"method":"a","params":{"_meta":{"progressToken":1,"progresstoken":2}}}',
            -32602,
        ),
    ],
)
def test_a_member_by_which_is_routed_stands_once_and_as_it_is_spelled(text: str, code: int) -> None:
    body = text.encode()
    answer = json.loads(ambiguity(body, decode_envelope(body)) or b"{}")
    assert answer["error"]["code"] == code
    assert "twice, or in another case" in answer["error"]["message"]
    known = code == -32602 and '"id":1' in text
    assert answer["id"] == (1 if known else None)


@pytest.mark.parametrize(
    "text",
    [
        '{"jsonrpc":"2.0","id":1,"method":"a","params":{"arguments":{"name":1,"name":2,"NAME":3}}}',
        '{"jsonrpc":"2.0","id":"\\ufffd", "method":"a","params":{"name":"\\ud83d"}}',
        '{"jsonrpc":"2.0","id":1,"method":"a","params":{"_meta":{"io.modelcontextprotocol\\/x":1}}}',
        '{"jsonrpc":"2.0","id":1,"method":"a","params":[{"name":1,"name":2}]}',
        '{"jsonrpc":"2.0","id":1,"method":"a","params":{}, "later":{"Name":1} }\n',
        '{"jsonrpc":"2.0","id":1,"method":"a","params":{"ref":5,"_meta":null}}',
    ],
)
def test_what_is_no_business_of_the_gateway_may_be_written_in_any_way(text: str) -> None:
    assert not refused(text)


@pytest.mark.parametrize("identity", ['"\\ud800"', '"a\\udc00b"', '"\\ude00\\ud83d"'])
@pytest.mark.parametrize("space", ["", " " * 20])
def test_an_id_that_no_answer_can_repeat_is_refused(identity: str, space: str) -> None:
    body = f'{{"jsonrpc":"2.0","id":{space}{identity},"method":"a"}}'.encode()
    answer = json.loads(ambiguity(body, decode_envelope(body)) or b"{}")
    assert (answer["id"], answer["error"]["code"]) == (None, -32600)
    for sound in ('"\\ufffd"', '"\\ud83d\\ude00"', '"\\\\ud800"'):
        assert not refused(f'{{"jsonrpc":"2.0","id":{space}{sound},"method":"a"}}')


@given(st.text(st.sampled_from("a\ud83d\ude00\ud800"), min_size=1, max_size=4), st.booleans())
def test_an_id_of_a_server_is_repeated_as_it_was_written(text: str, before: bool) -> None:
    identity = json.dumps(text)
    params = f'"params":{{"id":"x","other":{identity}}}'
    members = [f'"id": {identity}', '"method":"roots/list"', params]
    body = "{" + ",".join(reversed(members) if before else members) + ',"jsonrpc":"2.0"}'
    assert bytes(decode_envelope(body.encode()).id) == identity.encode()


def test_an_argument_that_stands_twice_beside_a_repeated_one_is_found() -> None:
    tool = (
        b'{"inputSchema":{"properties":{"a":{"type":"string","x-mcp-header":"A"},'
        b'"d":{"properties":{"e":{"type":"string","x-mcp-header":"E"}}}}}}'
    )
    found = header_params_of(tool)
    for arguments, name in {
        '{"a":"1","a":"2"}': "a",
        '{"b":1, "b":1}': "b",
        '{"d":{"e":"1","e":"2"}}': "e",
        '{"d":{"f":{"g":1,"g":2}}}': None,
        '{"a":"1","d":{"e":"1"}}': None,
        "[1]": None,
    }.items():
        assert twice_in_arguments(found, b'{"arguments":%s}' % arguments.encode()) == name


async def raw(running: Running, text: str, **headers: str) -> tuple[int, Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    kind = {"Content-Type": "application/json", **named}
    async with running.http.post(running.url, data=text.encode(), headers=kind) as reply:
        return reply.status, json.loads(await reply.read())


async def test_no_server_is_sent_what_can_be_read_as_another_call(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        await running.post(call("tools/list"))
        await queries.set_tool(
            running.database, "default", ToolSetting("plain", "pid", enabled=False)
        )
        await running.gateway.reload()
        text = json.dumps(call("tools/call", name="echo", arguments={}))
        assert (await raw(running, text))[1]["result"]
        for twice in ('"name": "pid", "name": "echo"', '"Name": "pid", "name": "echo"'):
            odd = text.replace('"name": "echo"', twice)
            status, answer = await raw(running, odd)
            assert (status, answer["error"]["code"]) == (400, -32602)
            opened = await running.post(call("initialize", protocolVersion="2025-03-26"))
            headers = {"mcp_session_id": opened.headers["mcp-session-id"]}
            _, answers = await raw(running, f"[{odd}, {text}]", **headers)
            assert answers[0]["error"]["code"] == -32602
            assert answers[1]["result"]


async def test_an_answer_that_can_be_read_as_two_does_not_reach_the_server(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        params = {**HELLO["params"], "capabilities": {"roots": {}}}
        opened = await running.post({**HELLO, "params": params})
        headers = {"mcp_session_id": opened.headers["mcp-session-id"]}
        named = {"Mcp-Session-Id": headers["mcp_session_id"]}
        asking = call("tools/call", name="ask", arguments={"method": "roots/list"})
        async with running.http.post(
            running.url, json=asking, headers={**named, "Accept": "text/event-stream"}
        ) as reply:
            stream = Stream(reply)
            _, question = await stream.next()
            told = json.dumps({"jsonrpc": "2.0", "id": question["id"], "result": {"roots": []}})
            odd = told[:-1] + ', "result": {"roots": [1]}}'
            status, answer = await raw(running, odd, **headers)
            assert (status, answer["error"]["code"]) == (400, -32600)
            assert (await running.post(json.loads(told), **headers)).status == 202
            _, answer = await stream.next()
        assert answer["result"]["content"][0]["text"] == '{"roots": []}'


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)
)


@given(st.dictionaries(st.text(), JSON), st.text(), JSON)
def test_an_edit_changes_one_member_and_no_other(
    members: dict[str, Any], key: str, value: Any
) -> None:
    edited = jsonrpc.edit(json.dumps(members).encode(), {key: json.dumps(value).encode()})
    assert json.loads(edited) == {**members, key: value}
    assert json.loads(jsonrpc.edit(edited, {key: None})) == {
        name: old for name, old in members.items() if name != key
    }
