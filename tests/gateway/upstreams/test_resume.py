"""A server hangs up in the middle of an answer, and sends the rest when the gateway reconnects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.gateway.support import gateway_of, http, serve
from tests.gateway.using import use

SESSION = (b"mcp-session-id", b"one")
STREAM = (b"content-type", b"text/event-stream")


def event(number: int, message: Any = None) -> bytes:
    data = "" if message is None else json.dumps(message)
    return f"id: e{number}\nretry: 20\ndata: {data}\n\n".encode()


class Interrupted:
    """Speaks 2025-11-25; `tools/call` breaks off after its first event, twice."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.identity: Any = None

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        headers = dict(scope["headers"])
        status, kind, body = 405, (b"content-type", b"application/json"), b""
        if scope["method"] == "POST":
            message = json.loads((await receive())["body"])
            status, kind, body = self.post(message)
        elif b"last-event-id" in headers:
            status, kind, body = 200, STREAM, self.resume(headers[b"last-event-id"].decode())
        await send({"type": "http.response.start", "status": status, "headers": [SESSION, kind]})
        await send({"type": "http.response.body", "body": body})

    def post(self, message: dict[str, Any]) -> tuple[int, tuple[bytes, bytes], bytes]:
        plain = (b"content-type", b"application/json")
        identity, method = message.get("id"), message["method"]
        if identity is None:
            return 202, plain, b""
        if method == "tools/call":
            self.identity = identity
            return 200, STREAM, event(1)
        results: dict[str, Any] = {
            "initialize": {
                "protocolVersion": "2025-11-25",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "interrupted", "version": "1"},
            },
            "tools/list": {"tools": [{"name": "long", "inputSchema": {}}]},
        }
        if method not in results:
            error = {"code": -32601, "message": "no"}
            return (
                400,
                plain,
                json.dumps({"jsonrpc": "2.0", "id": identity, "error": error}).encode(),
            )
        reply = {"jsonrpc": "2.0", "id": identity, "result": results[method]}
        return 200, plain, json.dumps(reply).encode()

    def resume(self, last: str) -> bytes:
        self.asked.append(last)
        if last == "e1":
            return event(2)
        result = {"content": [{"type": "text", "text": "at last"}]}
        return event(3, {"jsonrpc": "2.0", "id": self.identity, "result": result})


async def test_an_answer_that_broke_off_is_taken_up_where_it_broke(tmp_path: Path) -> None:
    server = Interrupted()
    async with serve(server) as url:
        async with gateway_of(tmp_path, http("interrupted", url + "/mcp")) as running:
            assert await use(running, "long") == "at last"
    assert server.asked == ["e1", "e2"]
