"""A server of the official SDK behind the legacy SSE transport."""

from __future__ import annotations

import socket

import uvicorn
from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("sdk-sse")


@server.tool()
async def add(a: int, b: int, context: Context) -> int:
    """Add two numbers."""
    await context.report_progress(1, 1)
    return a + b


if __name__ == "__main__":
    listening = socket.create_server(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{listening.getsockname()[1]}/sse", flush=True)
    uvicorn.Server(uvicorn.Config(server.sse_app(), log_level="warning")).run([listening])
