"""Arguments of a tool that a request repeats as headers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.gateway.catalog import header_params
from local_mcp_gateway.gateway.protocol.jsonrpc import encode
from tests.conformance.sides import EVERYTHING, over_http
from tests.gateway.messages import call, modern
from tests.gateway.support import gateway_of, http


async def test_an_argument_and_the_header_that_repeats_it_have_to_agree(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, EVERYTHING) as running:
        await running.post(call("tools/list"))
        message, named = modern("tools/call", "test_x_mcp_header", arguments={"region": "eu"})
        for header in ("eu", "=?base64?ZXU=?="):
            reply = await running.post(message, **named, mcp_param_region=header)
            assert (await reply.json())["result"]["content"][0]["text"] == "region=eu"
        for sent in ({"mcp_param_region": "us"}, {"mcp_param_region": "=?base64?***?="}, {}):
            reply = await running.post(message, **named, **sent)
            assert reply.status == 400
            assert (await reply.json())["error"]["code"] == -32020


async def test_the_gateway_repeats_arguments_for_clients_that_do_not(tmp_path: Path) -> None:
    """Over HTTP the server itself refuses a call whose headers are missing."""
    async with over_http() as url:
        async with gateway_of(tmp_path, http("everything", url)) as running:
            await running.post(call("tools/list"))
            message, named = modern("tools/call", "test_x_mcp_header", arguments={"region": "ü"})
            reply = await running.post(message, **named, local_mcp_gateway_bridge="1")
            assert (await reply.json())["result"]["content"][0]["text"] == "region=ü"


SCALAR = st.text() | st.integers() | st.booleans()


@given(st.dictionaries(st.sampled_from("abc"), SCALAR), SCALAR)
def test_headers_that_the_gateway_writes_pass_its_own_check(
    arguments: dict[str, Any], inner: Any
) -> None:
    def annotated(header: str) -> dict[str, str]:
        return {"type": "string", "x-mcp-header": header}

    nested = {"type": "object", "properties": {"e": annotated("Deep")}}
    properties = {"a": annotated("A"), "b": annotated("B"), "d": nested}
    tool = encode({"name": "t", "inputSchema": {"type": "object", "properties": properties}})
    found = header_params.header_params_of(tool)
    assert {each.header for each in found} == {"mcp-param-a", "mcp-param-b", "mcp-param-deep"}
    params = encode({"name": "t", "arguments": {**arguments, "d": {"e": inner}}})
    headers = dict(header_params.headers_for(found, params))
    assert header_params.header_fault(found, headers, params) is None
    assert header_params.header_fault(
        found, {**headers, "mcp-param-deep": "?"}, params
    ) is not None or (str(inner) == "?")


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {"type": "number", "x-mcp-header": "A"}}},
        {"properties": {"a": {"type": "string", "x-mcp-header": "not a token"}}},
        {"properties": {n: {"type": "string", "x-mcp-header": "Same"} for n in "ab"}},
        {"items": {"type": "string", "x-mcp-header": "A"}},
        {"properties": {"a": {"type": "string"}}},
    ],
)
def test_an_annotation_that_is_not_valid_asks_for_nothing(schema: Any) -> None:
    assert header_params.header_params_of(encode({"name": "t", "inputSchema": schema})) == ()
