"""A stdio server with four tools, in plain Python: `python child.py NAME`."""

from __future__ import annotations

import json
import sys
from typing import Any

NAME = sys.argv[1]
TOOLS = [
    {
        "name": f"{NAME}_{kind}",
        "description": f"{kind} of {NAME}",
        "inputSchema": {"type": "object"},
    }
    for kind in ("echo", "read", "write", "find")
]


def answer(message: dict[str, Any]) -> dict[str, Any]:
    method = message["method"]
    if method == "initialize":
        return {
            "protocolVersion": message["params"]["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": NAME, "version": "1"},
        }
    if method == "tools/list":
        return {"tools": TOOLS}
    text = message.get("params", {}).get("arguments", {}).get("text", "")
    return {"content": [{"type": "text", "text": text}]}


for line in sys.stdin:
    asked = json.loads(line)
    if "id" in asked:
        reply = {"jsonrpc": "2.0", "id": asked["id"], "result": answer(asked)}
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()
