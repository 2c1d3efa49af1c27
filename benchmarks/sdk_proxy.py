"""The baseline: a proxy made of the official SDK, its server before its client."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from mcp import Client, types
from mcp.server.lowlevel import Server

from benchmarks.echo_server import serve


@asynccontextmanager
async def lifespan(_: Any) -> AsyncIterator[Client]:
    async with Client(sys.argv[1], mode="legacy") as client:
        yield client


async def list_tools(context: Any, params: Any) -> types.ListToolsResult:  # noqa: ARG001  the SDK passes both
    client: Client = context.lifespan_context
    return await client.list_tools()


async def call_tool(context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
    client: Client = context.lifespan_context
    return await client.call_tool(params.name, params.arguments or {})


server: Server[Client] = Server(
    "sdk-proxy", lifespan=lifespan, on_list_tools=list_tools, on_call_tool=call_tool
)

if __name__ == "__main__":
    serve(server.streamable_http_app(json_response=True))
