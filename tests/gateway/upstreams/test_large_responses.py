"""Answers that are larger than what is held: over HTTP they pass as their bytes come."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local_mcp_gateway.gateway.protocol.sse import SseParser, continued
from local_mcp_gateway.gateway.upstreams import large_responses
from local_mcp_gateway.gateway.upstreams.connection import UpstreamDisconnected
from local_mcp_gateway.gateway.upstreams.large_responses import identity_in
from tests.gateway.messages import HELLO, META, MODERN, call
from tests.gateway.processes import rss_mib
from tests.gateway.support import QUICK, SERVERS, Running, gateway_of, http, process
from tests.harness import Place

MIB = 1024 * 1024
HELD = replace(QUICK, max_message_bytes=MIB)
FORMS = ["json", "chunked", "stream"]


def wanted(identity: Any = "mine", **asked: Any) -> dict[str, Any]:
    arguments = {"mib": 5, "form": "json", "id": "first", **asked}
    return call("tools/call", identity, name="large", arguments=arguments)


@asynccontextmanager
async def large_server(
    tmp_path: Path, *arguments: str
) -> AsyncIterator[tuple[Running, asyncio.subprocess.Process]]:
    async with process(SERVERS / "large_http.py", *arguments) as (child, url):
        async with gateway_of(tmp_path, http("large", url), options=HELD) as running:
            yield running, child


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with large_server(tmp_path) as (running, _):
        yield running


@pytest.mark.parametrize(("form", "place"), list(itertools.product(FORMS, ["first", "last"])))
async def test_an_answer_beyond_the_limit_of_what_is_held_passes(
    running: Running, form: str, place: str
) -> None:
    for identity in ("mine", 7, 1.5):
        reply = await running.post(wanted(identity, form=form, id=place, odd=True))
        body = await reply.json()
        assert body["id"] == identity
        assert body["result"] == {"content": [{"type": "text", "text": "x" * (5 * MIB)}]}
    finished = await running.heard("call.finished", target="large")
    assert finished["status"] == "ok"


async def test_it_comes_after_what_came_before_it_in_one_stream(running: Running) -> None:
    message = wanted(form="stream", first=True, odd=True)
    message["params"]["_meta"] = {"progressToken": "t"}
    hello = {**HELLO, "params": {**HELLO["params"], "protocolVersion": "2025-11-25"}}
    session = (await running.post(hello)).headers["mcp-session-id"]
    reply = await running.post(message, mcp_session_id=session)
    _, progress, answer = list(SseParser(10**9).feed(await reply.read()))[-3:]
    assert json.loads(progress.data)["params"] == {"progressToken": "t"}
    assert len(json.loads(answer.data)["result"]["content"][0]["text"]) == 5 * MIB
    accept = {"Accept": "text/event-stream", "Mcp-Session-Id": session}
    asked = {**accept, "Last-Event-ID": progress.id or ""}
    async with running.http.get(running.url, headers=asked) as again:
        (gone,) = SseParser(10**6).feed(await again.read())
    assert "send the request again" in json.loads(gone.data)["error"]["message"]


@pytest.mark.parametrize("form", FORMS)
async def test_an_answer_that_breaks_off_is_not_told_as_whole(running: Running, form: str) -> None:
    with pytest.raises(aiohttp.ClientPayloadError):
        await running.post(wanted(form=form, cut=True))
    finished = await running.heard("call.finished", target="large")
    assert finished["status"] == "error"
    assert (await (await running.post(wanted(mib=0))).json())["result"]


@pytest.mark.parametrize("form", FORMS)
async def test_a_client_that_leaves_in_the_middle_ends_the_answer_at_the_server(
    tmp_path: Path, form: str
) -> None:
    async with large_server(tmp_path) as (running, child):
        accept = {"Accept": "application/json, text/event-stream"}
        message = wanted(form=form, mib=1000)
        async with running.http.post(running.url, json=message, headers=accept) as reply:
            await reply.content.readexactly(3 * MIB)
        assert child.stdout is not None
        with anyio.fail_after(30):
            assert await child.stdout.readline() == b"gone\n"
        assert (await running.heard("call.finished", target="large"))["status"] == "cancelled"


async def test_a_stateless_client_is_told_the_type_of_a_large_result(running: Running) -> None:
    headers = {"MCP_Protocol_Version": MODERN, "Mcp_Method": "tools/call", "Mcp_Name": "large"}
    message = wanted(form="chunked")
    message["params"]["_meta"] = META
    body = await (await running.post(message, **headers)).json()
    assert (body["result"]["resultType"], body["id"]) == ("complete", "mine")


async def test_a_handshake_client_gets_a_large_result_of_a_stateless_server(tmp_path: Path) -> None:
    async with large_server(tmp_path, "--modern") as (running, _):
        body = await (await running.post(wanted(form="stream"))).json()
        assert len(body["result"]["content"][0]["text"]) == 5 * MIB


async def test_what_has_to_be_held_and_cannot_be_is_refused(running: Running) -> None:
    hello = {**HELLO, "params": {**HELLO["params"], "protocolVersion": "2025-03-26"}}
    session = (await running.post(hello)).headers["mcp-session-id"]
    batch = await running.post([wanted(form="json")], mcp_session_id=session)
    (answer,) = await batch.json()
    assert "larger than 1048576 bytes (max_message_bytes)" in answer["error"]["message"]


async def test_a_hundred_mebibytes_take_no_memory(shipped: Place) -> None:
    async with process(SERVERS / "large_http.py") as (_, url):
        shipped.run("server", "add", "large", "--url", url)
        with shipped.serve() as gateway:
            pid, mcp = gateway.wait_ready().process.pid, f"{gateway.url}/mcp"
            accept = {"Accept": "application/json, text/event-stream"}
            async with aiohttp.ClientSession(headers=accept) as client:

                async def read(mib: int, form: str, place: str) -> tuple[int, str]:
                    size, digest = 0, hashlib.sha256()
                    message = wanted(mib=mib, form=form, id=place)
                    async with client.post(mcp, json=message) as reply:
                        async for chunk in reply.content.iter_chunked(MIB):
                            size += len(chunk)
                            digest.update(chunk)
                    return size, digest.hexdigest()

                await read(2, "json", "first")
                before = rss_mib(pid, "VmHWM")
                for form, place in (("json", "first"), ("stream", "last")):
                    size, digest = await read(100, form, place)
                    whole = expected(100, place)
                    assert (size, digest) == (len(whole), hashlib.sha256(whole).hexdigest())
                assert rss_mib(pid, "VmHWM") - before < 30


def expected(mib: int, place: str) -> bytes:
    own = b'"jsonrpc":"2.0","id":"mine"'
    result = b'"result":{"content":[{"type":"text","text":"' + b"x" * (mib * MIB) + b'"}]}'
    return b"{" + b",".join((own, result) if place == "first" else (result, own)) + b"}"


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


async def pieces(whole: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(whole), size):
        yield whole[at : at + size]


async def relayed(message: bytes, size: int, start: int, own: bytes, theirs: bytes) -> bytes | None:
    rest = pieces(message[start:], size)
    found = large_responses.begin(message[:start], rest, own, b'"added":1,')
    return None if found is None else b"".join([part async for part in found.parts(theirs)])


@settings(max_examples=50)
@given(
    st.dictionaries(st.text(max_size=5), ANY, min_size=1),
    st.permutations(["jsonrpc", "id", "result"]),
    st.integers(1, 5000),
    st.sampled_from([None, 1]),
    st.sampled_from([b"7", b'"g-7"']),
)
def test_only_the_id_of_a_large_answer_changes(
    result: Any, order: list[str], size: int, indent: int | None, own: bytes
) -> None:
    result = {**result, "decoy": [{"id": json.loads(own)}, '},"id":7}']}
    values = {"jsonrpc": "2.0", "id": json.loads(own), "result": result}
    message = json.dumps({key: values[key] for key in order}, indent=indent).encode()
    text = asyncio.run(relayed(message, size, 200 + len(message) // 2, own, b'"client"'))
    assert text is not None
    told = json.loads(text)
    assert told == {**values, "id": "client", "result": {"added": 1, **result}}
    assert list(told) == order
    undone = text.replace(b'"added":1,', b"", 1)
    at = undone.rindex(b'"client"')
    assert undone[:at] + own + undone[at + 8 :] == message


@given(st.integers(1, 60), st.integers(1, 9))
def test_a_large_answer_that_ends_too_soon_is_broken(cut: int, size: int) -> None:
    message = json.dumps({"result": {"a": "x" * 300}, "jsonrpc": "2.0", "id": 7}).encode()
    with pytest.raises(UpstreamDisconnected, match="broke off"):
        asyncio.run(relayed(message[:-cut], size, 100, b"7", b"8"))


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"[",
        b'{"jsonrpc":"2.0","method":"x","params":{"result":{',
        b'{"jsonrpc":"2.0","id":8,"result":{',
        b'{"jsonrpc":"2.0","id":7,"error":{',
        b'{"id":7,"result":[',
    ],
)
def test_what_is_no_answer_of_ours_is_not_relayed(start: bytes) -> None:
    assert large_responses.begin(start, pieces(b"", 1), b"7") is None


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r"))), st.integers(1, 9))
def test_a_part_of_an_event_comes_out_as_it_went_in(lines: list[str], size: int) -> None:
    text = "\n".join(["x" * 20, *lines]).encode()
    whole = b"data: " + continued(text) + b"\r\n\r\ndata: next\r\n\r\n"
    parser = SseParser(10**6)
    assert list(parser.feed(whole[:15])) == []
    found = [parser.begun]
    parser.hand_over()
    for at in range(15, len(whole), size):
        part, ended = parser.pass_on(whole[at : at + size])
        found.append(part)
        if ended:
            break
    assert b"".join(found) == text


@given(
    st.permutations([b'"id":%s', b'"jsonrpc":"2.0"', b'"result":%s']),
    st.sampled_from([b"7", b'"id"', b'"a\\"}"', b"-1.5"]),
    st.sampled_from([b'{"id":5}', b'{"x":"},\\"id\\":5}"}', b'{"a":{"id":5},"id":6}', b"{}"]),
    st.sampled_from([b"", b" "]),
)
def test_an_answer_is_known_by_its_own_id_wherever_that_stands(
    order: list[bytes], identity: bytes, result: bytes, space: bytes
) -> None:
    members = [m % identity if m.startswith(b'"id"') else m.replace(b"%s", result) for m in order]
    whole = space + b"{" + space + (space + b"," + space).join(members) + space + b"}"
    assert identity_in(whole, whole) == identity
    assert json.loads(whole)["id"] == json.loads(identity)
