"""A stdio MCP server whose one tool answers once it is told to: a call that is in flight for sure.

python waiting_server.py FOLDER: `hold` writes a line to the pipe FOLDER/held, and answers after one has
come through the pipe FOLDER/go.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(sys.argv[1])


def answer(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    match method:
        case "initialize":
            return {
                "protocolVersion": params["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "waiting", "version": "1"},
            }
        case "tools/list":
            return {"tools": [{"name": "hold", "inputSchema": {"type": "object"}}]}
        case "tools/call":
            (FOLDER / "held").write_text("held\n")
            with (FOLDER / "go").open() as pipe:
                pipe.readline()
            return {"content": [{"type": "text", "text": "went"}]}
    return None


for line in sys.stdin:
    message = json.loads(line)
    if "id" in message:
        result = answer(message["method"], message.get("params", {}))
        outcome = {"result": result} if result else {"error": {"code": -32601, "message": "no"}}
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], **outcome}) + "\n")
        sys.stdout.flush()
