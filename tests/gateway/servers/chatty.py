"""A stdio server whose one tool, `chatter`, makes it send log messages once it has answered, or `first`."""

from __future__ import annotations

import json
import sys
from typing import Any


def send(**members: Any) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **members}) + "\n")
    sys.stdout.flush()


def result_of(message: dict[str, Any]) -> dict[str, Any]:
    if message["method"] == "initialize":
        version = message["params"]["protocolVersion"]
        return {"protocolVersion": version, "capabilities": {"tools": {}, "logging": {}}}
    if message["method"] == "tools/list":
        return {"tools": [{"name": "chatter", "inputSchema": {"type": "object"}}]}
    return {"content": []}


for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    asked = message.get("params", {}).get("arguments", {})
    if not asked.get("first"):
        send(id=message["id"], result=result_of(message))
    if message["method"] == "tools/call":
        for _ in range(asked["messages"]):
            params = {"level": "error", "data": "x" * asked["bytes"]}
            send(method="notifications/message", params=params)
    if asked.get("first"):
        send(id=message["id"], result=result_of(message))
