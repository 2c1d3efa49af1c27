"""An HTTP server that writes comments without end: at `/mcp` as the answer to a call, at `/sse` always."""

from __future__ import annotations

import json
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMENTS = b":\n" * 100_000
KNOWN = {
    "protocolVersion": "2025-06-18",
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "comments", "version": "1"},
}
TOOLS = {"tools": [{"name": "talk", "inputSchema": {"type": "object"}}]}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def talk(self, start: bytes = b"") -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(start)
        with suppress(OSError):
            while True:
                self.wfile.write(COMMENTS)

    def reply(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self.path == "/sse":
            self.talk(b"event: endpoint\ndata: /nowhere\n\n")
        else:
            self.reply(405)

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        method, identity = message.get("method"), message.get("id")
        if method == "tools/call":
            self.talk()
        elif identity is None or self.path == "/nowhere":
            self.reply(202)
        elif method in {"initialize", "tools/list"}:
            result = KNOWN if method == "initialize" else TOOLS
            self.reply(
                200, json.dumps({"jsonrpc": "2.0", "id": identity, "result": result}).encode()
            )
        else:
            error = {"code": -32601, "message": "no"}
            self.reply(200, json.dumps({"jsonrpc": "2.0", "id": identity, "error": error}).encode())


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()
