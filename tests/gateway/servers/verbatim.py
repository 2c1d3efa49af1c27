"""A server whose result is, byte by byte, what it is asked for in hexadecimal; over stdio or `--http`.

The tool `same` takes `result`, and tells on stderr (over HTTP in a header's stead: never) what it got.
`told` gives back the last request's line, in hexadecimal.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("same", "told")]
last = b""


def answer(line: bytes) -> bytes | None:
    global last
    message = json.loads(line)
    method, params = message["method"], message.get("params", {})
    if "id" not in message:
        return None
    result: bytes | None = None
    known: Any = {}
    if method == "initialize":
        known = {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "verbatim", "version": "1"},
        }
    elif method == "tools/list":
        known = {"tools": TOOLS}
    elif method == "server/discover":
        error = {"code": -32601, "message": "no"}
        return json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": error}).encode()
    elif params.get("name") == "same":
        last, result = line, bytes.fromhex(params["_meta"]["result"])
    elif params.get("name") == "told":
        known = {"content": [{"type": "text", "text": last.hex()}]}
    body = json.dumps(known).encode() if result is None else result
    own = json.dumps(message["id"]).encode()
    return b'{"jsonrpc":"2.0","id":' + own + b',"result":' + body + b"}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.send_response(405)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        body = answer(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(202 if body is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")


if "--http" in sys.argv:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(f"http://127.0.0.1:{server.server_address[1]}/mcp", flush=True)
    server.serve_forever()
for asked in sys.stdin.buffer:
    if (told := answer(asked.rstrip(b"\n"))) is not None:
        sys.stdout.buffer.write(told + b"\n")
        sys.stdout.buffer.flush()
