"""What clients and servers should not send is answered in a sentence, and hurts nobody else."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.gateway.protocol import jsonrpc
from local_mcp_gateway.gateway.protocol.jsonrpc import (
    MALFORMED,
    answer_in,
    decode_envelope,
    number_of,
)
from local_mcp_gateway.gateway.protocol.sse import SseParser
from local_mcp_gateway.gateway.protocol.versions import modern_result
from local_mcp_gateway.gateway.routing.call_log import COUNTED
from local_mcp_gateway.gateway.routing.router import Router
from local_mcp_gateway.store import queries
from local_mcp_gateway.store.model import ToolSetting
from tests.gateway.messages import HELLO, META, MODERN, call
from tests.gateway.support import QUICK, Running, gateway_of, stdio
from tests.gateway.using import Stream, session, use

PLAIN = stdio("plain", "plain.py")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with gateway_of(tmp_path, PLAIN) as running:
        yield running


async def raw(running: Running, body: bytes, **headers: str) -> tuple[int, Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    kind = {"Content-Type": "application/json", **named}
    async with running.http.post(running.url, data=body, headers=kind) as reply:
        text = await reply.read()
        return reply.status, json.loads(text) if text else None


@given(st.dictionaries(st.sampled_from(["result", "error", "id", "x"]), JSON))
def test_any_answer_of_a_server_is_a_result_or_an_error_object(members: dict[str, Any]) -> None:
    answer = answer_in(decode_envelope(json.dumps({"jsonrpc": "2.0", **members})))
    value = json.loads(bytes(answer.body))
    assert isinstance(value, dict) if answer.failed else value == members["result"]
    modern = modern_result(answer, "tools/call")
    assert isinstance(json.loads(bytes(modern.body)), dict)


@given(JSON)
def test_a_result_says_its_type_at_the_top_whatever_is_inside(inside: Any) -> None:
    body = json.dumps({"content": inside, "more": {"resultType": "inner", "ttlMs": 1}}).encode()
    value = json.loads(bytes(modern_result(jsonrpc.Answer(body), "resources/read").body))
    assert (value["resultType"], value["ttlMs"]) == ("complete", 0)
    assert value["more"] == {"resultType": "inner", "ttlMs": 1}


@given(
    st.text(st.sampled_from('a\\u"\n\ud83d\ud800\udbff\ude00\udfff\U0001f600é'), max_size=12),
    st.booleans(),
)
def test_texts_that_were_cut_anywhere_are_texts(text: str, ascii_only: bool) -> None:
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if not ascii_only:  # such an encoder writes whole characters as they are
        text = whole
    line = json.dumps({"jsonrpc": "2.0", "id": 1, "result": text}, ensure_ascii=ascii_only).encode()
    for message in (decode_envelope(line), *jsonrpc.messages_in(b"[" + line + b"]")):
        assert jsonrpc.decode_any(message.result) == whole
    if "\ufffd" not in whole:
        assert bytes(decode_envelope(line).result) in line


@given(st.binary(max_size=30) | st.integers().map(lambda n: b"%d" % n))
def test_a_number_is_one_of_ours_or_none(raw: bytes) -> None:
    ours = raw.isdigit() and len(raw) <= jsonrpc.MOST_DIGITS
    assert number_of(raw) == (int(raw) if ours else 0)


@given(st.binary(max_size=60))
def test_any_bytes_are_an_envelope_or_malformed(body: bytes) -> None:
    with suppress(*MALFORMED):
        assert decode_envelope(body) is not None


async def test_answers_that_are_none_are_errors_in_valid_json(running: Running) -> None:
    stateless = {"mcp_protocol_version": MODERN, "mcp_method": "tools/call", "mcp_name": "echo"}
    for answer in ({}, {"result": None}, {"result": "x"}, {"error": 5}, {"error": None}):
        arguments = {"answer": answer}
        old = call("tools/call", name="echo", arguments=arguments)
        body = await (await running.post(old)).json()
        assert ("result" in body) is ("result" in answer)
        new = call("tools/call", name="echo", arguments=arguments, _meta=META)
        assert "is not an object" in str(await (await running.post(new, **stateless)).json()) or (
            "neither" in str(await (await running.post(new, **stateless)).json())
        )


async def test_what_a_client_may_not_send_is_refused(running: Running) -> None:
    deep = b"[" * 50_000 + b"]" * 50_000
    for body, code in (
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"\xff"}}', -32700),
        (b'{"jsonrpc":"2.0","id":"\xff","method":"ping"}', -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"a":"\xff"}}', -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":%s}' % deep, -32700),
        (b'{"jsonrpc":"2.0","id":{},"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600),
    ):
        status, answer = await raw(running, body)
        assert (status, answer["error"]["code"]) == (400, code), body[:80]


async def test_junk_in_notifications_and_headers_is_let_go(running: Running) -> None:
    headers = await session(running)
    cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": [1]}
    assert (await running.post(cancelled, **headers)).status == 202
    for last in ("9" * 5000, "²"):
        asked = {"Mcp-Session-Id": headers["mcp_session_id"], "Accept": "text/event-stream"}
        async with running.http.get(running.url, headers={**asked, "Last-Event-ID": last}) as reply:
            assert reply.status == 200
    listen = call("subscriptions/listen", notifications=5, _meta=META)
    named = {"mcp_protocol_version": MODERN, "mcp_method": "subscriptions/listen"}
    reply = await running.post(listen, **named)
    assert (reply.status, (await reply.json())["error"]["code"]) == (400, -32602)
    bad = {**META, "io.modelcontextprotocol/clientCapabilities": "x"}
    named = {"mcp_protocol_version": MODERN, "mcp_method": "tools/list"}
    reply = await running.post(call("tools/list", _meta=bad), **named)
    assert (reply.status, (await reply.json())["error"]["code"]) == (400, -32602)


async def test_a_client_whose_capabilities_are_no_object_can_be_asked_nothing(
    running: Running,
) -> None:
    params = {**HELLO["params"], "capabilities": "x"}
    hello = await running.post({**HELLO, "params": params})
    headers = {"mcp_session_id": hello.headers["mcp-session-id"]}
    asking = call("tools/call", name="ask", arguments={"method": "roots/list"})
    body = await (await running.post(asking, **headers)).text()
    assert "does not support roots" in body


async def test_the_media_type_is_compared_as_media_types_are(running: Running) -> None:
    ping = json.dumps(call("ping")).encode()
    for kind, status in (
        ("Application/JSON", 200),
        ("application/json; charset=utf-8", 200),
        ("application/jsonfoo", 415),
    ):
        async with running.http.post(
            running.url, data=ping, headers={"Content-Type": kind}
        ) as reply:
            assert reply.status == status


async def test_what_is_not_allowed_says_what_is(running: Running) -> None:
    base = running.url.removesuffix("/mcp")
    for method, path, allowed in (
        ("GET", "/mcp", "POST"),
        ("DELETE", "/mcp", "POST"),
        ("POST", "/health/ready", "GET, HEAD"),
        ("DELETE", "/metrics", "GET, HEAD"),
    ):
        async with running.http.request(method, base + path) as reply:
            assert (reply.status, reply.headers["Allow"]) == (405, allowed)


async def test_names_that_clients_make_up_are_counted_as_one_and_cut(running: Running) -> None:
    await running.post(call("made/up"))
    await running.post(call("tools/call", name="n" * 100_000))
    async with running.http.get(running.url.replace("/mcp", "/metrics")) as reply:
        text = await reply.text()
    assert "made/up" not in text
    assert 'method="other"' in text
    finished = [fields for event, fields in running.said if event == "call.finished"]
    assert max(len(fields["target"] or "") for fields in finished) == 256
    assert Router.METHODS.keys() == COUNTED


async def test_a_hidden_tool_is_not_called_while_the_lists_are_unknown(tmp_path: Path) -> None:
    options = replace(QUICK, list_timeout_s=0.2, call_timeout_s=10)
    late = stdio("late", "plain.py", "--list-fails", "1000")
    async with gateway_of(tmp_path, late, options=options) as running:
        hidden = ToolSetting("late", "echo", enabled=False)
        await queries.set_tool(running.database, "default", hidden)
        renamed = ToolSetting("late", "pid", name="who")
        await queries.set_tool(running.database, "default", renamed)
        await running.gateway.reload()
        assert "Unknown tool" in (await use(running, "echo"))["message"]
        assert "Unknown tool" in (await use(running, "pid"))["message"]
        assert int(await use(running, "who")) > 0


@asynccontextmanager
async def get(running: Running, **headers: str) -> AsyncIterator[Any]:
    named = {"Mcp-Session-Id": headers["mcp_session_id"], "Accept": "text/event-stream"}
    async with running.http.get(running.url, headers=named) as reply:
        assert reply.status == 200
        yield reply


async def test_a_removed_profile_ends_its_streams_and_answers_what_runs(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, PLAIN) as running:
        headers = await session(running)
        sse = running.url.replace("/mcp", "/sse")
        async with get(running, **headers) as stream, running.http.get(sse) as legacy:
            await legacy.content.readline()
            sleeping = call("tools/call", name="sleep", arguments={"seconds": 60})
            running_call = asyncio.create_task(running.post(sleeping, **headers))
            await running.wrote("sleeping ")
            await queries.remove_profile(running.database, "default")
            await running.gateway.reload()
            with anyio.fail_after(20):
                await stream.content.read()
                await legacy.content.read()
                assert "The session has ended" in await (await running_call).text()
        assert (await running.post(call("ping"))).status == 404


async def test_another_program_under_a_servers_name_does_not_show_the_old_ones_tools(
    tmp_path: Path,
) -> None:
    options = replace(QUICK, list_timeout_s=0.2)
    async with gateway_of(tmp_path, PLAIN, options=options) as running:
        await running.heard_after(running.post(call("tools/list")), "upstream.connected")
        await running.kept("plain")
        other = replace(PLAIN, command="/no/such/program")
        await queries.update_server(running.database, "plain", other)
        await running.gateway.reload()
        body = await (await running.post(call("tools/list"))).json()
        assert body["result"]["tools"] == []


@pytest.fixture
def complaints(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return what libraries have complained of: each would be a traceback in the log."""

    def found() -> list[str]:
        gc.collect()  # a task whose exception nobody took is told when it is collected
        return [record.getMessage() for record in caplog.records]

    return found


async def test_numbers_that_none_can_hold_are_refused_in_a_sentence(
    running: Running, complaints: Callable[[], list[str]]
) -> None:
    headers = await session(running)
    named = {"mcp_protocol_version": MODERN, "mcp_method": "tools/list"}
    version, level = (f"io.modelcontextprotocol/{key}" for key in ("protocolVersion", "logLevel"))
    versionless, levelled = (json.dumps({**META, key: 7}) for key in (version, level))
    for body, more in (
        (b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"x":1e999}}', {}),
        (b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":1e999}}', {}),
        (_listing(versionless.replace(": 7", ": 1e999")), named),
        (_listing(levelled.replace(": 7", ": 1e999")), named),
        (_listing("[1e999]"), {"mcp_protocol_version": "2027-01-01"}),
    ):
        status, answer = await raw(running, body, **more)
        assert (status, answer["error"]["code"]) in {(400, -32602), (400, -32600)}, body
    for params in (b"", b',"params":[]', b',"params":{"progressToken":1e999}'):
        body = b'{"jsonrpc":"2.0","method":"notifications/progress"%s}' % params
        assert (await raw(running, body, **headers))[0] == 202
    assert complaints() == []


def _listing(meta: str) -> bytes:
    return b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":%s}}' % meta.encode()


async def test_however_deep_a_message_is_nested_it_is_answered(
    tmp_path: Path, complaints: Callable[[], list[str]]
) -> None:
    options = replace(QUICK, log_payloads=True)
    async with gateway_of(tmp_path, PLAIN, options=options) as running:
        await running.post(call("tools/list"))
        named = {"mcp_protocol_version": MODERN, "mcp_method": "tools/list"}
        meta = json.dumps(META).replace("{}", '{"x":DEEP}')
        for depth in (300, 600, *range(880, 1010)):
            deep = b"[" * depth + b"]" * depth
            used = b'{"name":"echo","arguments":{"progressToken":%s}}' % deep
            for body, more in (
                (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":%s}' % used, {}),
                (b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"x":%s}}' % deep, {}),
                (_listing(meta.replace("DEEP", deep.decode())), named),
            ):
                status, answer = await raw(running, body, **more)
                assert status in {200, 400}
                assert "result" in answer or answer["error"]["code"] in {-32602, -32700}
    assert complaints() == []


async def test_a_call_with_params_that_cannot_be_read_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    async with gateway_of(tmp_path, PLAIN) as running:
        arguments = {"method": "roots/list"}
        bad = call("tools/call", name="echo", arguments={"progressToken": 1}, _meta=None)
        assert (await (await running.post(bad)).json())["error"]["code"] == -32602
        asking = call("tools/call", name="ask", arguments=arguments)
        for headers in ({}, await session(running)):
            answer = await (await running.post(asking, **headers)).json()
            assert "does not support roots" in answer["result"]["content"][0]["text"]


async def test_an_answer_of_a_client_that_is_none_reaches_the_server_as_an_error(
    running: Running,
) -> None:
    hello = call("initialize", protocolVersion="2025-06-18", capabilities={"roots": {}})
    opened = await running.post(hello)
    headers = {"mcp_session_id": opened.headers["mcp-session-id"]}
    given: list[dict[str, Any]] = [{}, {"error": 5}, {"error": None, "result": {"roots": []}}]
    for answer in given:
        asking = call("tools/call", name="ask", arguments={"method": "roots/list"})
        accepted = {"Accept": "application/json, text/event-stream"}
        named = {"Mcp-Session-Id": headers["mcp_session_id"], **accepted}
        async with running.http.post(running.url, json=asking, headers=named) as reply:
            stream = Stream(reply)
            _, question = await stream.next()
            told = {"jsonrpc": "2.0", "id": question["id"], **answer}
            assert (await running.post(told, **headers)).status == 202
            _, told = await stream.next()
        text = told["result"]["content"][0]["text"]
        assert ("The client returned" in text) is ("result" not in answer)
        assert ("roots" in text) is ("result" in answer)


async def test_what_may_not_stand_in_a_batch_is_refused_there(running: Running) -> None:
    hello = call("initialize", protocolVersion="2025-03-26", capabilities={})
    opened = await running.post(hello)
    headers = {"mcp_session_id": opened.headers["mcp-session-id"]}
    odd = [call("initialize", 1), call("ping", None), {"id": 3}, call("ping", 4), 5]
    answers = await (await running.post(odd, **headers)).json()
    codes = [answer.get("error", {}).get("code") for answer in answers]
    assert codes == [-32600, -32600, -32600, None, -32600]
    assert answers[-1]["error"]["message"] == "Invalid request: Expected `object`, got `int`"
    assert (await running.post([], **headers)).status == 400
    assert (await running.post([call("ping")] * 10_000, **headers)).status == 400


async def test_a_legacy_client_is_refused_what_any_client_is(
    running: Running, complaints: Callable[[], list[str]]
) -> None:
    base = running.url.removesuffix("/mcp")
    async with running.http.get(base + "/sse") as legacy:
        stream = SseParser(10**6)
        (named,) = stream.feed(await legacy.content.readuntil(b"\r\n\r\n"))
        url = base + named.data.decode()
        for body, status in (
            (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', 400),
            (b'{"id":1}', 400),
            (b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":1e999}', 202),
        ):
            kind = {"Content-Type": "application/json"}
            async with running.http.post(url, data=body, headers=kind) as reply:
                assert reply.status == status
        (answer,) = stream.feed(await legacy.content.readuntil(b"\r\n\r\n"))
        assert json.loads(answer.data)["error"]["code"] == -32602
    assert complaints() == []
