"""A client of the handshake era that answers what servers ask, and keeps all that it is ever sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import anyio

from local_mcp_gateway.gateway.protocol.sse import SseParser
from tests.gateway.messages import HELLO, call
from tests.gateway.support import Running

ABLE = {"roots": {"listChanged": True}, "sampling": {}, "elicitation": {}}
ACCEPT = {"Accept": "application/json, text/event-stream"}


class Later(dict[str, Any]):
    """An answer that is not given before it may be."""

    def __init__(self, may: asyncio.Event) -> None:
        super().__init__()
        self.may = may


@dataclass
class Client:
    """One session. `answers` maps a method to the result that this client gives."""

    running: Running
    answers: dict[str, Any]
    path: str = "/mcp"
    received: list[str] = field(default_factory=list)
    """Every message, as text."""
    stirred: asyncio.Event = field(default_factory=asyncio.Event)
    session: str = ""
    _numbered: int = 0

    def notes(self, method: str) -> list[Any]:
        """Return the params of the notifications of this method."""
        messages = (json.loads(text) for text in self.received)
        return [m.get("params") for m in messages if m.get("method") == method and "id" not in m]

    async def until(self, true: Any) -> None:
        """Return once this is so, asked again with each message."""
        with anyio.fail_after(20):
            while not true():
                self.stirred.clear()
                await self.stirred.wait()

    async def tell(self, method: str, **params: Any) -> None:
        """Send a notification."""
        await self._post({"jsonrpc": "2.0", "method": method, "params": params})

    async def use(self, tool: str, meta: Any = None, /, **arguments: Any) -> Any:
        """Call a tool; return its value, or the error."""
        params: dict[str, Any] = {"name": tool, "arguments": arguments}
        if meta is not None:
            params["_meta"] = meta
        answer = await self.ask("tools/call", **params)
        if "error" in answer:
            return answer["error"]
        return json.loads(answer["result"]["content"][0]["text"])

    async def ask(self, method: str, /, **params: Any) -> Any:
        """Send a request; return the message that answers it."""
        self._numbered += 1
        identity = self._numbered
        message = call(method, identity, **params)
        async with self._posting(message) as reply:
            if reply.content_type != "text/event-stream":
                text = await reply.text()
                self._take(text)
                return json.loads(text)
            parser = SseParser(10**7)
            async for chunk in reply.content.iter_any():
                for event in parser.feed(chunk):
                    answer = await self._event(event.data)
                    if answer is not None and answer.get("id") == identity:
                        return answer
        raise AssertionError("the stream ended without an answer")

    async def leave(self) -> None:
        """End the session."""
        url = self._url
        async with self.running.http.delete(url, headers=self._headers) as reply:
            assert reply.status == 200

    async def listen(self, ready: asyncio.Event) -> None:
        """Read the GET stream until cancelled."""
        headers = {**self._headers, "Accept": "text/event-stream"}
        async with self.running.http.get(self._url, headers=headers) as reply:
            parser = SseParser(10**7)
            ready.set()
            async for chunk in reply.content.iter_any():
                for event in parser.feed(chunk):
                    await self._event(event.data)

    async def _event(self, data: bytes) -> Any:
        if not data:
            return None
        message = json.loads(data)
        self._take(data.decode())
        if "method" in message and "id" in message:
            answer: Any = {"error": {"code": -32601, "message": "not here"}}
            if message["method"] in self.answers:
                result = self.answers[message["method"]]
                if isinstance(result, Later):
                    await result.may.wait()
                answer = {"result": result}
            await self._post({"jsonrpc": "2.0", "id": message["id"], **answer})
        return message if "method" not in message else None

    def _take(self, text: str) -> None:
        self.received.append(text)
        self.stirred.set()

    @property
    def _url(self) -> str:
        return self.running.url.removesuffix("/mcp") + self.path

    @property
    def _headers(self) -> dict[str, str]:
        return {"Mcp-Session-Id": self.session}

    @asynccontextmanager
    async def _posting(self, message: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {**ACCEPT, **self._headers}
        async with self.running.http.post(self._url, json=message, headers=headers) as reply:
            yield reply

    async def _post(self, message: Any) -> None:
        async with self._posting(message) as reply:
            await reply.read()


@asynccontextmanager
async def client(
    running: Running, *, listens: bool = True, capabilities: Any = None, **answers: Any
) -> AsyncIterator[Client]:
    """Open a session; end it at the end, if it has not ended itself."""
    named = {name.replace("_", "/"): value for name, value in answers.items()}
    one = Client(running, named)
    params = {**HELLO["params"], "capabilities": ABLE if capabilities is None else capabilities}
    reply = await running.post({**HELLO, "params": params})
    one.session = reply.headers["mcp-session-id"]
    async with asyncio.TaskGroup() as tasks:
        listening = None
        if listens:
            ready = asyncio.Event()
            listening = tasks.create_task(one.listen(ready))
            await ready.wait()
        await one.tell("notifications/initialized")
        try:
            yield one
        finally:
            with suppress(AssertionError):
                await one.leave()
            if listening is not None:
                listening.cancel()


def roots(*uris: str) -> dict[str, Any]:
    """Return the answer to `roots/list`."""
    return {"roots": [{"uri": uri} for uri in uris]}
