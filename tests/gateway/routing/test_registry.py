"""Any params and any result pass through a running gateway byte by byte, over stdio and over HTTP."""

from __future__ import annotations

import http.client
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import given, settings
from hypothesis import strategies as st

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
