"""A server that speaks 2026-07-28 and nothing else: over HTTP it takes no handshake."""

from __future__ import annotations

import socket
from typing import Any

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.types import (
    CallToolResult,
    ElicitRequest,
    ElicitRequestFormParams,
    InputRequiredResult,
    TextContent,
)

server = MCPServer("modern-only")


@server.tool()
async def greet(context: Context) -> CallToolResult | InputRequiredResult:
    """Ask for a name, then greet."""
    given = context.input_responses
    if not given:
        form = ElicitRequestFormParams(
            message="Who are you?",
            requested_schema={"type": "object", "properties": {"name": {"type": "string"}}},
        )
        return InputRequiredResult(
            input_requests={"who": ElicitRequest(params=form)}, request_state="first"
        )
    assert context.request_state == "first"
    answer: Any = given["who"]
    return CallToolResult(content=[TextContent(text=f"Hello {answer.content['name']}")])


@server.tool()
async def slow(context: Context) -> str:
    """Report progress."""
    await context.report_progress(1, 2)
    return "done"


handled = server.streamable_http_app()


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http" and (b"mcp-protocol-version", b"2026-07-28") not in scope["headers"]:
        await send({"type": "http.response.start", "status": 400, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        return
    await handled(scope, receive, send)


if __name__ == "__main__":
    listening = socket.create_server(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{listening.getsockname()[1]}/mcp", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run([listening])
