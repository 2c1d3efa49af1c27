"""A client on the SDK of its day, run with that on its path: `sse|http URL`. Prints what it has seen."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from mcp import ClientSession, types  # an older one than this project's

HOW, URL = sys.argv[1:]


def streams() -> Any:
    if HOW == "sse":
        from mcp.client.sse import sse_client

        return sse_client(URL)
    from mcp.client.streamable_http import streamablehttp_client  # type: ignore[attr-defined]

    return streamablehttp_client(URL)


async def main() -> dict[str, Any]:
    heard: asyncio.Queue[str] = asyncio.Queue()
    asked: list[str] = []

    async def roots(_: Any) -> Any:
        asked.append("roots")
        return types.ListRootsResult(roots=[])

    async def sample(_: Any, __: Any) -> Any:
        asked.append("sampling")
        content = types.TextContent(type="text", text="hi")
        return types.CreateMessageResult(role="assistant", content=content, model="m")

    async def take(message: Any) -> None:
        heard.put_nowait(type(getattr(message, "root", message)).__name__)

    options: dict[str, Any] = {
        "sampling_callback": sample,
        "list_roots_callback": roots,
        "message_handler": take,
    }
    async with streams() as (reading, writing, *_), ClientSession(reading, writing, **options) as s:
        session: Any = s
        hello = await session.initialize()
        tools = [tool.name for tool in (await session.list_tools()).tools]
        await session.call_tool("ask", {"method": "roots/list"})
        sampling = {"messages": [], "maxTokens": 5}
        await session.call_tool("ask", {"method": "sampling/createMessage", "params": sampling})
        (resource,) = (await session.list_resources()).resources
        await session.subscribe_resource(resource.uri)
        await session.call_tool("change", {})
        while await heard.get() != "ResourceUpdatedNotification":
            pass
        read = (await session.read_resource(resource.uri)).contents[0].text
        await session.call_tool("grow", {"name": "grown"})
        while await heard.get() != "ToolListChangedNotification":
            pass
        more = [tool.name for tool in (await session.list_tools()).tools]
        answer = await session.call_tool("big", {"bytes": 3_000_000})
        return {
            "version": hello.protocolVersion,
            "asked": asked,
            "read": read,
            "grown": sorted(set(more) - set(tools)),
            "bytes": len(answer.content[0].text),
        }


print(json.dumps(asyncio.run(asyncio.wait_for(main(), 60))))
