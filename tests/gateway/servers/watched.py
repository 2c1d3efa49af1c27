"""A stdio server with a resource that changes, and subscriptions to it."""

from __future__ import annotations

import json
import sys
from typing import Any

subscribed: set[str] = set()
count = 0


def send(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def answer(method: str, params: dict[str, Any]) -> dict[str, Any]:
    global count
    if method == "initialize":
        return {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {}, "resources": {"subscribe": True, "listChanged": True}},
            "serverInfo": {"name": "watched", "version": "1"},
        }
    if method == "tools/list":
        return {"tools": [{"name": n, "inputSchema": {}} for n in ("change", "who", "die")]}
    if method == "resources/list":
        return {"resources": [{"uri": "watch://it", "name": "it"}]}
    if method == "resources/templates/list":
        return {"resourceTemplates": [{"uriTemplate": "watch://by/{id}", "name": "by"}]}
    if method == "resources/read":
        return {"contents": [{"uri": params["uri"], "text": str(count)}]}
    if method == "resources/subscribe":
        subscribed.add(params["uri"])
        print("subscribed", *sorted(subscribed), file=sys.stderr, flush=True)
    if method == "resources/unsubscribe":
        subscribed.discard(params["uri"])
        print("still subscribed", *sorted(subscribed), file=sys.stderr, flush=True)
    if method == "tools/call" and params["name"] == "die":
        sys.exit(1)
    if method == "tools/call" and params["name"] == "change":
        count += 1
        for uri in sorted(subscribed):
            message = {"method": "notifications/resources/updated", "params": {"uri": uri}}
            send({"jsonrpc": "2.0", **message})
    if method == "tools/call":
        return {"content": [{"type": "text", "text": " ".join(sorted(subscribed))}]}
    return {}


for line in sys.stdin:
    asked = json.loads(line)
    if "id" in asked:
        result = answer(asked["method"], asked.get("params", {}))
        send({"jsonrpc": "2.0", "id": asked["id"], "result": result})
