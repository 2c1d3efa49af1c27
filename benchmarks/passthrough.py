"""The floor: uvicorn and one pooled aiohttp session, bytes through, nothing understood."""

from __future__ import annotations

import sys
from typing import Any

import aiohttp

from benchmarks.echo_server import serve

session: aiohttp.ClientSession | None = None


async def app(scope: Any, receive: Any, send: Any) -> None:
    global session  # noqa: PLW0603  one pool for the process
    if scope["type"] != "http":
        return
    if session is None:
        connector = aiohttp.TCPConnector(limit=0)
        session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    async with session.post(sys.argv[1], data=body, headers=headers) as reply:
        answer = await reply.read()
        status = reply.status
    sent = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": status, "headers": sent})
    await send({"type": "http.response.body", "body": answer})


if __name__ == "__main__":
    serve(app)
