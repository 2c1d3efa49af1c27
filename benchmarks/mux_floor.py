"""The floor over stdio: uvicorn and one child, the id rewritten, nothing else understood."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from typing import Any

from benchmarks.echo_server import serve

child: asyncio.subprocess.Process | None = None
waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
number = 0
reading: asyncio.Task[None] | None = None


async def read() -> None:
    assert child is not None
    assert child.stdout is not None
    while line := await child.stdout.readline():
        message = json.loads(line)
        future = waiting.pop(message.get("id"), None)
        if future is not None:
            future.set_result(message)


async def app(scope: Any, receive: Any, send: Any) -> None:
    global child, number, reading  # noqa: PLW0603  one child for the process
    if scope["type"] != "http":
        return
    if child is None:
        command = shlex.split(sys.argv[1])
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
        reading = asyncio.create_task(read())
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    asked = json.loads(body)
    assert child.stdin is not None
    answer, status = b"", 202
    if "id" in asked:
        number += 1
        future = waiting[number] = asyncio.get_running_loop().create_future()
        child.stdin.write(json.dumps({**asked, "id": number}).encode() + b"\n")
        await child.stdin.drain()
        reply = await future
        answer, status = json.dumps({**reply, "id": asked["id"]}).encode(), 200
    else:
        child.stdin.write(body + b"\n")
    sent = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": status, "headers": sent})
    await send({"type": "http.response.body", "body": answer})


if __name__ == "__main__":
    serve(app)
