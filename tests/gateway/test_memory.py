"""What a request leaves behind, and how much is kept for clients that do not read."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.support import Running, gateway_of, http, stdio
from tests.gateway.test_faces import HELLO, call


@pytest.fixture
async def running(tmp_path: Path, notes_url: str) -> AsyncIterator[Running]:
    async with gateway_of(
        tmp_path, stdio("plain", "plain.py"), http("notes", notes_url)
    ) as running:
        yield running


@contextmanager
def garbage() -> Iterator[Counter[str]]:
    """Count our own objects that only the collector of cycles can free, by their type."""
    found: Counter[str] = Counter()
    gc.collect()
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        kinds = [f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.garbage]
        found.update(kind for kind in kinds if kind.startswith("local_mcp_gateway."))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


ASKED: dict[str, Any] = {
    "list": {"jsonrpc": "2.0", "id": 1, "method": "tools/list"},
    "stdio": call("tools/call", name="echo", arguments={}),
    "progress": call("tools/call", name="progress", arguments={}, _meta={"progressToken": 1}),
    "http": call("tools/call", name="list_notes", arguments={}),
}


@pytest.mark.parametrize("what", ASKED)
async def test_a_request_leaves_nothing_for_the_collector_of_cycles(
    running: Running, what: str
) -> None:
    session = (await running.post(HELLO)).headers["mcp-session-id"]
    await running.post(ASKED[what], mcp_session_id=session)
    with garbage() as found:
        for _ in range(20):
            reply = await running.post(ASKED[what], mcp_session_id=session)
            assert b'"result"' in await reply.read()
    assert found == {}
