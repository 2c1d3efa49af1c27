"""A server over HTTP whose answers are compressed, and whose streams end at once."""

from __future__ import annotations

import json
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.gateway.support import QUICK, Running, gateway_of, http, serve

JSON = (b"content-type", b"application/json")
STREAM = (b"content-type", b"text/event-stream")


class Odd:
    """Speaks 2025-11-25; its GET stream ends at once, and `packed` is a gzip of as much as is asked."""

    def __init__(self) -> None:
        self.got: list[Mapping[bytes, bytes]] = []

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        status, headers, body = 200, [STREAM], b""
        if scope["method"] == "POST":
            status, headers, body = self.post(json.loads((await receive())["body"]))
        else:
            self.got.append(dict(scope["headers"]))
        headers = [*headers, (b"content-length", b"%d" % len(body)), (b"mcp-session-id", b"1")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def post(self, message: dict[str, Any]) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        if "id" not in message:
            return 202, [JSON], b""
        reply = {"jsonrpc": "2.0", "id": message["id"]}
        match message["method"]:
            case "initialize":
                info = {"name": "odd", "version": "1"}
                known = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}}
                reply["result"] = {**known, "serverInfo": info}
            case "tools/list":
                reply["result"] = {"tools": [{"name": "packed", "inputSchema": {}}]}
            case "tools/call":
                text = "x" * message["params"]["arguments"]["bytes"]
                reply["result"] = {"content": [{"type": "text", "text": text}]}
                stream = zlib.compressobj(9, zlib.DEFLATED, 31)
                packed = stream.compress(json.dumps(reply).encode()) + stream.flush()
                return 200, [JSON, (b"content-encoding", b"gzip")], packed
            case _:
                reply["error"] = {"code": -32601, "message": "no such thing"}
        return 200, [JSON], json.dumps(reply).encode()


@asynccontextmanager
async def odd(tmp_path: Path, **changes: Any) -> AsyncIterator[tuple[Odd, Running]]:
    server, options = Odd(), replace(QUICK, **changes)
    async with serve(server) as url:
        async with gateway_of(tmp_path, http("odd", url + "/mcp"), options=options) as running:
            yield server, running
