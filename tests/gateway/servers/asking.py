"""A stdio server of 2025-03-26 that asks its client something in its tool `ask`, and answers in batches.

It waits for progress, takes its question back when `call_off` is set, and then answers the call. With
`later` it answers the call at once, and asks after that.
"""

from __future__ import annotations

import json
import sys
from typing import Any

QUESTION = {
    "jsonrpc": "2.0",
    "id": "q",
    "method": "elicitation/create",
    "params": {"message": "Who?", "requestedSchema": {}, "_meta": {"progressToken": 7}},
}
CALLED_OFF = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "q"}}
NEWS = {
    "jsonrpc": "2.0",
    "method": "notifications/message",
    "params": {"level": "error", "data": "in a batch"},
}
asked: dict[str, Any] = {}


def send(*messages: Any) -> None:
    print(json.dumps(messages[0] if len(messages) == 1 else messages), flush=True)


def text(value: object) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": json.dumps(value)}]}


def answered(identity: Any, result: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": identity, "result": result}


def take(message: dict[str, Any]) -> None:
    method, identity = message.get("method"), message.get("id")
    if method is None and asked["params"]["arguments"].get("later"):
        told = {**message.get("result", {}), **message.get("error", {})}
        print("told", json.dumps(told), file=sys.stderr, flush=True)
    elif method is None:
        send(answered(asked["id"], text(message.get("result", message.get("error")))))
    elif method == "notifications/progress":
        print("progress", json.dumps(message["params"]), file=sys.stderr, flush=True)
        if asked["params"]["arguments"].get("call_off"):
            send(CALLED_OFF)
            send(answered(asked["id"], text("called off")))
    elif method == "initialize":
        known: dict[str, Any] = {"tools": {}, "logging": {}}
        send(answered(identity, {"protocolVersion": "2025-03-26", "capabilities": known}))
    elif method == "tools/list":
        send(NEWS, answered(identity, {"tools": [{"name": "ask", "inputSchema": {}}]}))
    elif method == "tools/call":
        asked.update(message)
        if message["params"]["arguments"].get("later"):
            send(answered(identity, text("later")))
            send(QUESTION)
        else:
            send(NEWS, QUESTION)


if __name__ == "__main__":
    for line in sys.stdin:
        take(json.loads(line))
