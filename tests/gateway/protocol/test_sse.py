"""Server-sent events, as they were sent and cut at every place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.gateway.protocol.sse import EventTooLarge, SseParser, render

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)
)


def cut(whole: bytes, size: int) -> list[bytes]:
    return [whole[start : start + size] for start in range(0, len(whole), size)]


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


def test_an_event_of_empty_lines_has_an_end() -> None:
    parser = SseParser(1000)
    for _ in range(1000):
        assert list(parser.feed(b"data:\n")) == []
    with pytest.raises(EventTooLarge):
        list(parser.feed(b"data:\n"))
