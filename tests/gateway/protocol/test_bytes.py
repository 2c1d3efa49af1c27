"""The pure cores: lines, events and envelopes, cut at every place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.gateway.protocol import jsonrpc, versions
from local_mcp_gateway.gateway.protocol.jsonrpc import Answer
from local_mcp_gateway.gateway.protocol.sse import EventTooLarge, SseParser, render
from local_mcp_gateway.gateway.upstreams.large_responses import identity_in
from local_mcp_gateway.gateway.upstreams.process import LineEnds, LineReader

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)
)


def cut(whole: bytes, size: int) -> list[bytes]:
    return [whole[start : start + size] for start in range(0, len(whole), size)]


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"))), st.integers(1, 9)
)
def test_lines_come_out_as_they_went_in(texts: list[str], size: int) -> None:
    lines = LineReader(10**6)
    whole = "".join(text + "\r\n" for text in texts).encode()
    found = [line.decode() for chunk in cut(whole, size) for line in lines.feed(chunk)]
    assert found == texts


@pytest.mark.parametrize("size", [1, 3, 7, 100, 10**6])
def test_each_line_beyond_the_limit_leaves_both_its_ends(size: int) -> None:
    lines, found, ends = LineReader(5000), [], list[LineEnds]()
    long = b'{"id":7,' + b"x" * 20_000 + b',"id":8}\n'
    for chunk in cut(b"a\n" + long + b"b\n" + long, size):
        found += list(lines.feed(chunk))
        ends += lines.overflowed
    assert found == [b"a", b"b"]
    assert len(ends) == 2
    assert all(end.head.startswith(b'{"id":7,') for end in ends)
    assert all(end.tail.endswith(b',"id":8}') for end in ends)


@pytest.mark.parametrize("size", [0, 1])
def test_a_line_of_exactly_the_limit_passes(size: int) -> None:
    lines = LineReader(100)
    whole = b"x" * (100 + size) + b"\n"
    for step in range(1, len(whole) + 1):
        found = [line for chunk in cut(whole, step) for line in lines.feed(chunk)]
        assert found == [whole[:-1]][: 1 - size]


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


@given(st.lists(JSON), st.sampled_from(["\n", "\r\n", "\r"]), st.integers(1, 9))
def test_events_come_out_as_they_went_in(values: list[Any], end: str, size: int) -> None:
    parser = SseParser(10**6)
    texts = [json.dumps(value) for value in values]
    whole = ": hi" + end + "".join(f"data: {text}{end}{end}" for text in texts)
    found = [e.data.decode() for chunk in cut(whole.encode(), size) for e in parser.feed(chunk)]
    assert found == texts


def test_an_event_says_what_it_is() -> None:
    (event,) = SseParser(100).feed(b"event: endpoint\nid: 5\nretry: 30\ndata: a\ndata: b\n\n")
    assert (event.event, event.id, event.retry_ms, event.data) == (b"endpoint", "5", 30, b"a\nb")
    with pytest.raises(EventTooLarge):
        list(SseParser(10).feed(b"data: " + b"x" * 50))


def test_pretty_printed_json_stays_json_in_an_event() -> None:
    (event,) = SseParser(100).feed(render(b'{\n "a": 1\r\n}', identity="3"))
    assert json.loads(event.data) == {"a": 1}
    assert event.id == "3"


@given(st.dictionaries(st.text(), JSON), st.text(), JSON)
def test_an_edit_changes_one_member_and_no_other(
    members: dict[str, Any], key: str, value: Any
) -> None:
    edited = jsonrpc.edit(json.dumps(members).encode(), {key: json.dumps(value).encode()})
    assert json.loads(edited) == {**members, key: value}
    assert json.loads(jsonrpc.edit(edited, {key: None})) == {
        name: old for name, old in members.items() if name != key
    }


@given(st.dictionaries(st.sampled_from("abc"), JSON))
def test_the_stateless_envelope_comes_off_as_it_went_on(params: dict[str, Any]) -> None:
    wrapped = versions.to_modern(json.dumps(params).encode())
    assert json.loads(wrapped)["_meta"][jsonrpc.VERSION_KEY] == "2026-07-28"
    assert json.loads(versions.to_handshake(wrapped)) == params


@pytest.mark.parametrize("body", [b"{}", b"{ }", b' {"a":1}', b'{"content":[],"_meta":{}}'])
def test_a_result_learns_its_type(body: bytes) -> None:
    told = json.loads(bytes(versions.modern_result(Answer(body), "resources/read").body))
    extra = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
    assert told == {**json.loads(body), **extra}


@given(st.text())
def test_any_name_survives_a_header(name: str) -> None:
    header = versions.encode_header(name)
    assert header.isascii()
    assert versions.decode_header(header) == name
