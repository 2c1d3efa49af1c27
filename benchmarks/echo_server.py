"""The upstream of the gateway benchmarks: the least that answers MCP over HTTP.

It does no more than parse the body, so that the gateway before it is what is measured.
"""

from __future__ import annotations

import json
import socket
from typing import Any

import uvicorn

TOOLS = [{"name": "echo", "inputSchema": {"type": "object"}}]


def answer(message: dict[str, Any]) -> dict[str, Any] | None:
    method, identity = message.get("method"), message.get("id")
    if identity is None:
        return None
    if method == "initialize":
        result: dict[str, Any] = {
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "echo", "version": "1"},
        }
    elif method == "tools/list":
        result = {"tools": TOOLS}
    elif method == "tools/call":
        text = message["params"].get("arguments", {}).get("text", "")
        result = {"content": [{"type": "text", "text": text}], "isError": False}
    else:
        error = {"code": -32601, "message": f"Method not found: {method}"}
        return {"jsonrpc": "2.0", "id": identity, "error": error}
    return {"jsonrpc": "2.0", "id": identity, "result": result}


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    body = b""
    status = 405
    if scope["method"] == "POST":
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        reply = answer(json.loads(body))
        status = 202 if reply is None else 200
        body = b"" if reply is None else json.dumps(reply).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def serve(application: Any) -> None:
    """Serve on a free port and print the URL first; every side of the benchmark uses this."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio does not see TCP here
    print(f"http://127.0.0.1:{listening.getsockname()[1]}/mcp", flush=True)
    config = uvicorn.Config(
        application,
        loop="asyncio",  # the same floor, whatever is installed
        log_level="warning",
        access_log=False,
    )
    uvicorn.Server(config).run([listening])


if __name__ == "__main__":
    serve(app)
