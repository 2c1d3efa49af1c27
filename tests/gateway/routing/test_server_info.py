"""The gateway says what its servers can, and adds nothing to a byte of what they and their clients say."""

from __future__ import annotations

import http.client
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import given, settings
from hypothesis import strategies as st
from mcp import types

from local_mcp_gateway.gateway.protocol.jsonrpc import Answer
from local_mcp_gateway.gateway.routing.server_info import (
    CUT_BYTES,
    ServerInfo,
    discover_result,
    initialize_result,
    instructions,
)
from local_mcp_gateway.gateway.upstreams.connection import Identity
from local_mcp_gateway.gateway.upstreams.handshake import identity_of_initialize
from local_mcp_gateway.store.model import Prefix
from tests.gateway.support import SERVERS, Running, gateway_of, process, stdio
from tests.gateway.support import http as http_server

SPACE = st.sampled_from(["", "", "", " ", "  ", "\t"])
TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
STRING = TEXT.map(json.dumps) | TEXT.map(lambda text: json.dumps(text, ensure_ascii=False))
ODD = ["0", "-0", "1.0", "1e3", "1E+03", "-12.50", "1e400", "123456789012345678901234567890"]
SCALAR = (
    st.sampled_from([*ODD, "null", "true", "false", '"\\u00e9\\/"', '"\\ud83d\\ude00"']) | STRING
)


@st.composite
def spread(draw: st.DrawFn, inner: st.SearchStrategy[str], kind: str) -> str:
    """Return an array or an object, with white space wherever it may be."""
    values = draw(st.lists(inner, max_size=3))
    if kind == "{}":
        names = draw(
            st.lists(STRING, min_size=len(values), max_size=len(values), unique_by=json.loads)
        )
        values = [
            f"{name}{draw(SPACE)}:{draw(SPACE)}{value}"
            for name, value in zip(names, values, strict=True)
        ]
    between = f"{draw(SPACE)},{draw(SPACE)}"
    return f"{kind[0]}{draw(SPACE)}{between.join(values)}{draw(SPACE)}{kind[1]}"


JSON = st.recursive(SCALAR, lambda inner: spread(inner, "[]") | spread(inner, "{}"), max_leaves=8)
OBJECT = spread(JSON, "{}")


@asynccontextmanager
async def gateways(folder: Path) -> AsyncIterator[Running]:
    async with process(SERVERS / "verbatim.py", "--http") as (_, url):
        servers = stdio("child", "verbatim.py"), http_server("web", url)
        async with gateway_of(folder, *servers, prefix=Prefix.ALWAYS) as running:
            await running.post({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
            yield running


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The gateway runs in a thread of its own, since Hypothesis calls plain functions."""
    folder = tmp_path_factory.mktemp("identity")
    with start_blocking_portal() as portal:
        with portal.wrap_async_context_manager(gateways(folder)) as running:
            yield urlsplit(running.url).port or 0


def post(port: int, body: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    try:
        connection.request("POST", "/mcp", body.encode(), headers)
        return connection.getresponse().read()
    finally:
        connection.close()


@pytest.mark.parametrize("server", ["child", "web"])
@settings(max_examples=40, deadline=None)
@given(
    arguments=OBJECT, unknown=JSON, result=OBJECT, identity=STRING | st.sampled_from(["7", "-1"])
)
def test_every_byte_of_params_and_result_passes(
    port: int, server: str, arguments: str, unknown: str, result: str, identity: str
) -> None:
    meta = f'{{"result":"{result.encode().hex()}"}}'
    params = f'"arguments":{arguments},"later":{unknown},"_meta":{meta}}}'
    body = f'{{"jsonrpc":"2.0","id":{identity},"method":"tools/call","params":{{"name":"{server}__same",{params}}}'
    expected = f'{{"jsonrpc":"2.0","id":{identity},"result":{result}}}'
    assert post(port, body).decode() == expected
    told = call(port, server)
    assert told.endswith(f'"params":{{"name":"same",{params}}}')


def call(port: int, server: str) -> str:
    params = {"name": f"{server}__told", "arguments": {}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    answer = json.loads(post(port, json.dumps(message)))
    return bytes.fromhex(answer["result"]["content"][0]["text"]).decode()


@dataclass
class Known:
    """A server that was connected before, and said this in its handshake."""

    name: str
    identity: Identity | None
    listed: frozenset[str] = frozenset()


def known(name: str, *, listed: frozenset[str] = frozenset(), **result: Any) -> ServerInfo:
    body = {"protocolVersion": "2025-11-25", **result}
    return Known(name, identity_of_initialize(Answer(json.dumps(body).encode())), listed)


UI = {"io.modelcontextprotocol/ui": {"mimeTypes": ["text/html;profile=mcp-app"]}}


def test_a_client_sees_the_capabilities_of_all_servers_of_its_profile() -> None:
    first = known("a", capabilities={"tools": {}, "extensions": UI, "experimental": {"x": {}}})
    tasks: dict[str, Any] = {"list": {}, "requests": {"tools": {"call": {}}}}
    types = {"io.modelcontextprotocol/ui": {"mimeTypes": ["text/plain"], "more": True}}
    second = known(
        "b", capabilities={"tasks": tasks, "extensions": types, "future": {"y": 1}, "odd": None}
    )
    for result in (
        initialize_result("2025-11-25", [first, second]),
        discover_result([first, second]),
    ):
        assert result["capabilities"] == {
            "tools": {"listChanged": True},
            "tasks": tasks,
            "experimental": {"x": {}},
            "future": {"y": 1},
            "extensions": {
                "io.modelcontextprotocol/ui": {
                    "mimeTypes": ["text/html;profile=mcp-app", "text/plain"],
                    "more": True,
                }
            },
        }


def test_a_capability_that_clients_could_not_read_takes_no_other_with_it() -> None:
    odd = {
        "experimental": {"a": 1, "b": {}},
        "tasks": {"list": True, "cancel": {}, "requests": {"tools": {"call": 1, "more": {}}}},
        "prompts": {"listChanged": {"a": {"b": 1}}},
        "extensions": {"x/y": "yes"},
        "tools": {"listChanged": "yes"},
        "future": {"y": 1},
    }
    servers = [known("a", capabilities=odd), known("b", capabilities={"tasks": {"list": {}}})]
    shown = initialize_result("2025-11-25", servers)["capabilities"]
    assert shown == {
        "experimental": {"b": {}},
        "tasks": {"cancel": {}, "list": {}, "requests": {"tools": {"more": {}}}},
        "prompts": {"listChanged": True},
        "extensions": {},
        "tools": {"listChanged": True},
        "future": {"y": 1},
    }
    types.ServerCapabilities.model_validate(shown)


def test_a_capability_that_is_not_declared_counts_if_its_list_has_something() -> None:
    server = known("a", listed=frozenset({"tools"}))
    assert initialize_result("2025-11-25", [server])["capabilities"] == {
        "tools": {"listChanged": True}
    }


def test_while_a_server_was_never_connected_it_may_have_everything_that_we_know() -> None:
    servers: list[ServerInfo] = [known("a", capabilities={"extensions": UI}), Known("b", None)]
    offered = initialize_result("2025-11-25", servers)["capabilities"]
    assert offered.keys() == {
        *("tools", "resources", "prompts", "completions", "logging", "extensions")
    }


def test_a_server_alone_in_its_profile_lends_it_its_title_and_icons() -> None:
    odd = [{"src": 5}, "x", {"src": "https://a", "sizes": "any"}]
    icons = [{"src": "https://a/icon.png", "theme": None}, *odd]
    info = {"name": "a", "version": "1", "title": "The A", "icons": icons, "websiteUrl": None}
    one, other = known("a", serverInfo=info), known("b")
    shown = initialize_result("2025-11-25", [one])["serverInfo"]
    assert (shown["name"], shown["title"]) == ("local-mcp-gateway", "The A")
    assert shown["icons"] == [{"src": "https://a/icon.png"}]
    assert "websiteUrl" not in shown
    assert initialize_result("2025-11-25", [one, other])["serverInfo"].keys() == {"name", "version"}


def test_instructions_of_one_server_are_its_own() -> None:
    text = "Use me. " * 1000
    assert (
        initialize_result("2025-11-25", [known("a", instructions=text), known("b")])["instructions"]
        == text
    )


@given(st.lists(st.text(max_size=3000), min_size=2, max_size=6))
def test_instructions_share_what_clients_read_and_lose_nothing(texts: list[str]) -> None:
    told = [(f"server-{number}", text) for number, text in enumerate(texts) if text]
    if len(told) < 2:
        return
    merged = instructions(told)
    start = merged.encode()[:CUT_BYTES].decode("utf-8", "ignore")
    share = CUT_BYTES // len(told) - 30
    for name, text in told:
        assert f"# {name}\n" in start
        begun = text.encode()[: share // 2].decode("utf-8", "ignore")
        assert f"# {name}\n{begun}" in start, "each server has its share"
    assert len(merged) >= sum(len(text) for _, text in told)
