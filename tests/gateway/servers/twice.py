"""A server of both eras over stdio, without an SDK, whose resource changes; over HTTP stateless only.

The first request decides the era of a child. `--single FOLDER`: a second child ends at once.
`--refuses FOLDER`: it knows the handshake only. `--mute`: after a handshake it does not know
`server/discover`, as the TypeScript SDK 2. `--stateless`: it refuses the handshake.
`--release FILE`: its version stands there. It says on stderr when it is asked what it speaks.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

URI = "twice://it"
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
TOOLS = ("pid", "change", "watched")
listening: dict[Any, asyncio.Queue[Any]] = {}
subscribed: set[str] = set()
era: str | None = None


def told(identity: Any, method: str, **params: Any) -> dict[str, Any]:
    params["_meta"] = {SUBSCRIPTION: identity}
    return {"jsonrpc": "2.0", "method": method, "params": params}


def use(tool: str) -> str:
    if tool == "pid":
        return str(os.getpid())
    if tool == "watched":
        return str(len([queue for queue in listening.values() if queue.wants]))  # type: ignore[attr-defined]
    for identity, queue in listening.items():
        if URI in queue.wants:  # type: ignore[attr-defined]
            queue.put_nowait(told(identity, "notifications/resources/updated", uri=URI))
    if subscribed:
        plain = {"method": "notifications/resources/updated", "params": {"uri": URI}}
        print(json.dumps({"jsonrpc": "2.0", **plain}), flush=True)
    return "changed"


def release() -> str:
    """Return what the file says just now."""
    if "--release" not in sys.argv:
        return "1"
    return Path(sys.argv[sys.argv.index("--release") + 1]).read_text()


def result(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    known = {"tools": {}, "resources": {"subscribe": True}, "logging": {}}
    if method == "initialize":
        info = {"name": "twice", "version": release()}
        return {
            "capabilities": known,
            "protocolVersion": params["protocolVersion"],
            "serverInfo": info,
        }
    if method == "server/discover":
        return {"capabilities": known, "supportedVersions": ["2026-07-28"]}
    if method == "tools/list":
        return {"tools": [{"name": name, "inputSchema": {}} for name in TOOLS]}
    if method == "resources/list":
        return {"resources": [{"uri": URI, "name": "it"}]}
    if method == "resources/subscribe" and era == "handshake":
        subscribed.add(params["uri"])
        return {}
    if method == "tools/call":
        return {"content": [{"type": "text", "text": use(params["name"])}]}
    return {} if method in {"ping", "logging/setLevel"} and era == "handshake" else None


def listen(identity: Any, params: dict[str, Any]) -> asyncio.Queue[Any]:
    queue: asyncio.Queue[Any] = asyncio.Queue()
    queue.wants = params["notifications"].get("resourceSubscriptions", [])  # type: ignore[attr-defined]
    listening[identity] = queue
    wanted = params["notifications"]
    queue.put_nowait(
        told(identity, "notifications/subscriptions/acknowledged", notifications=wanted)
    )
    return queue


def error(identity: Any, code: int, text: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": identity, "error": {"code": code, "message": text}}


# --- stdio ------------------------------------------------------------------------------------------


async def write_all(queue: asyncio.Queue[Any]) -> None:
    while True:
        print(json.dumps(await queue.get()), flush=True)


def answer(message: dict[str, Any], tasks: set[asyncio.Task[None]]) -> None:
    global era
    method, identity, params = message["method"], message.get("id"), message.get("params", {})
    if method == "notifications/cancelled":
        listening.pop(params["requestId"], None)
    if identity is None:
        return
    refuses = "--refuses" in sys.argv
    its = "handshake" if method == "initialize" or refuses else "stateless"
    if "--stateless" in sys.argv and its == "handshake":
        print(json.dumps(error(identity, -32022, "unsupported")), flush=True)
        return
    era = era or its
    enveloped = "io.modelcontextprotocol/protocolVersion" in params.get("_meta", {})
    if era == "handshake" and enveloped:
        print("asked", file=sys.stderr, flush=True)
        code = -32601 if refuses or "--mute" in sys.argv else -32600
        print(json.dumps(error(identity, code, "this connection is of the handshake")), flush=True)
    elif method == "subscriptions/listen":
        tasks.add(asyncio.ensure_future(write_all(listen(identity, params))))
    elif (found := result(method, params)) is None:
        print(json.dumps(error(identity, -32601, f"no {method}")), flush=True)
    else:
        print(json.dumps({"jsonrpc": "2.0", "id": identity, "result": found}), flush=True)


async def main() -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    tasks: set[asyncio.Task[None]] = set()
    while line := await reader.readline():
        answer(json.loads(line), tasks)
    os._exit(0)


# --- HTTP -------------------------------------------------------------------------------------------


async def app(scope: Any, receive: Any, send: Any) -> None:
    body = (await receive()).get("body") or b"{}"
    message = json.loads(body)
    method, identity, params = (message.get(key) for key in ("method", "id", "params"))

    async def reply(status: int, kind: bytes, body: bytes, *, more: bool = False) -> None:
        headers = [(b"content-type", kind)]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": more})

    if method == "subscriptions/listen":
        queue = listen(identity, params)
        await reply(200, b"text/event-stream", b"", more=True)
        leaving = asyncio.ensure_future(receive())
        while not leaving.done():
            getting = asyncio.ensure_future(queue.get())
            await asyncio.wait((leaving, getting), return_when=asyncio.FIRST_COMPLETED)
            if getting.done():
                event = f"data: {json.dumps(getting.result())}\n\n".encode()
                await send({"type": "http.response.body", "body": event, "more_body": True})
            getting.cancel()
        listening.pop(identity, None)
        return
    found = result(method, params) if method and method != "initialize" else None
    if found is None:
        await reply(404, b"application/json", json.dumps(error(identity, -32601, "no")).encode())
        return
    done = {"jsonrpc": "2.0", "id": identity, "result": found}
    await reply(200, b"application/json", json.dumps(done).encode())


if __name__ == "__main__":
    if "--single" in sys.argv:
        try:
            (Path(sys.argv[-1]) / "running").touch(exist_ok=False)
        except FileExistsError:
            sys.exit("it runs already")
    asyncio.run(main())
