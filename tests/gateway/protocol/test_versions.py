"""A message in one protocol version says the same in the other."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.gateway.protocol import jsonrpc, versions
from local_mcp_gateway.gateway.protocol.jsonrpc import Answer

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)
)


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
