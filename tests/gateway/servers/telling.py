"""A stdio server that tells everything that it was given: on stderr, in a tool's error, in a name."""

from __future__ import annotations

import json
import os
import sys

TOLD = json.dumps({"args": sys.argv[1:], "env": dict(os.environ)})


def main() -> None:
    print(f"started with {TOLD}", file=sys.stderr, flush=True)
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        result: object = {}
        if message["method"] == "initialize":
            version = message["params"]["protocolVersion"]
            about = {"name": "telling", "version": "1"}
            result = {
                "protocolVersion": version,
                "serverInfo": about,
                "capabilities": {"tools": {}},
            }
        elif message["method"] == "tools/list":
            result = {"tools": [{"name": "tell", "inputSchema": {"type": "object"}}]}
        reply: dict[str, object] = {"jsonrpc": "2.0", "id": message["id"], "result": result}
        if message["method"] == "tools/call":
            reply = {**reply, "error": {"code": -32000, "message": f"refused: {TOLD}"}}
            del reply["result"]
        print(json.dumps(reply), flush=True)


main()
