"""Use a running gateway as a client does that speaks plain HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from local_mcp_gateway.gateway.protocol.sse import Event, SseParser
from tests.gateway.messages import HELLO, call, modern
from tests.gateway.support import Running

ACCEPT = {"Accept": "application/json, text/event-stream"}


async def session(running: Running) -> dict[str, str]:
    reply = await running.post(HELLO)
    assert reply.status == 200
    return {"mcp_session_id": reply.headers["mcp-session-id"]}


async def use(running: Running, tool: str, /, **arguments: Any) -> Any:
    """Call a tool with curl's means; return the text of its result, or the error."""
    body = await (await running.post(call("tools/call", name=tool, arguments=arguments))).json()
    return body["error"] if "error" in body else body["result"]["content"][0]["text"]


async def names(running: Running, path: str = "/mcp", **headers: str) -> list[str]:
    body = await (await running.post(call("tools/list"), path=path, **headers)).json()
    return [tool["name"] for tool in body["result"]["tools"]]


async def events(running: Running, message: Any, **headers: str) -> list[Any]:
    """Post a message; return every message of the stream that answers it."""
    reply = await running.post(message, **headers)
    assert reply.content_type == "text/event-stream"
    return [json.loads(event.data) for event in SseParser(10**6).feed(await reply.read())]


class Stream:
    """Reads events one by one."""

    def __init__(self, reply: Any) -> None:
        self.reply = reply
        self._parser = SseParser(10**6)
        self._events: list[Event] = []

    async def next(self) -> tuple[str | None, Any]:
        with anyio.fail_after(15):
            while not self._events:
                chunk = await self.reply.content.readany()
                assert chunk, "the stream has ended"
                self._events += [event for event in self._parser.feed(chunk) if event.data]
        event = self._events.pop(0)
        message = json.loads(event.data)
        if message.get("method", "").endswith(
            "list_changed"
        ):  # the server was met for the first time
            return await self.next()
        return event.id, message


@asynccontextmanager
async def opened(running: Running, headers: dict[str, str], **more: str) -> AsyncIterator[Stream]:
    named = {"Mcp-Session-Id": headers["mcp_session_id"], "Accept": "text/event-stream", **more}
    async with running.http.get(running.url, headers=named) as reply:
        assert reply.status == 200
        yield Stream(reply)


@asynccontextmanager
async def posted(running: Running, headers: dict[str, str], message: Any) -> AsyncIterator[Stream]:
    named = {"Mcp-Session-Id": headers["mcp_session_id"], **ACCEPT}
    async with running.http.post(running.url, json=message, headers=named) as reply:
        yield Stream(reply)


async def use_modern(running: Running, tool: str, /, **arguments: Any) -> str:
    message, headers = modern("tools/call", tool, arguments=arguments)
    body = await (await running.post(message, **headers)).json()
    assert "result" in body, body
    return str(body["result"]["content"][0]["text"])
