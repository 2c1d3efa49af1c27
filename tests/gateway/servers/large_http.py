"""An HTTP server of either era whose answers are as large as they are asked to be, and never held.

`large` takes `mib`; `form`: `json` (with a length), `chunked` or `stream`; `id`: `first` or `last`;
`first`: send progress before; `cut`: break off in the middle; `odd`: line ends in the answer. It prints
a line when the client of an answer has gone.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODERN = "--modern" in sys.argv
CHUNK = b"x" * 65_536
TOOL = {"name": "large", "inputSchema": {"type": "object"}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def reply(self, status: int, message: Any = None) -> None:
        body = b"" if message is None else json.dumps(message).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.reply(405)

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        method, identity = message.get("method"), message.get("id")
        known: Any = {"capabilities": {"tools": {}, "resources": {}}}
        if method == ("server/discover" if MODERN else "initialize"):
            known |= {"supportedVersions": ["2026-07-28"], "protocolVersion": "2025-11-25"}
            self.reply(200, {"jsonrpc": "2.0", "id": identity, "result": known})
        elif identity is None:
            self.reply(202)
        elif method == "tools/list":
            self.reply(200, {"jsonrpc": "2.0", "id": identity, "result": {"tools": [TOOL]}})
        elif method == "tools/call":
            self.large(identity, message["params"])
        elif method == "resources/read":
            self.large(identity, {"arguments": {"mib": 2, "form": "chunked", "id": "last"}})
        else:
            error = {"code": -32601, "message": f"no {method}"}
            self.reply(404, {"jsonrpc": "2.0", "id": identity, "error": error})

    def large(self, identity: Any, params: Any) -> None:
        asked = params["arguments"]
        end = b"\n" if asked.get("odd") else b""
        own = b'"jsonrpc":"2.0","id":' + json.dumps(identity).encode()
        type_ = b'"resultType":"complete",' if MODERN else b""
        result = b'"result":{%s%s"content":[{"type":"text","text":"' % (end, type_)
        head = b"{" + own + b"," + result if asked["id"] == "first" else b"{" + result
        tail = b'"}]%s}' % end + (b"}" if asked["id"] == "first" else b"," + own + b"}")
        size = asked["mib"] * 1024 * 1024
        self.send_response(200)
        if asked["form"] == "json":
            self.send_header("Content-Length", str(len(head) + size + len(tail)))
        else:
            self.send_header("Transfer-Encoding", "chunked")
        kind = "text/event-stream" if asked["form"] == "stream" else "application/json"
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.chunked = asked["form"] != "json"
        try:
            if asked.get("first"):
                token = params["_meta"]["progressToken"]
                told = {"method": "notifications/progress", "params": {"progressToken": token}}
                self.send(b"data: " + json.dumps({"jsonrpc": "2.0", **told}).encode() + b"\n\n")
            stream = asked["form"] == "stream"
            self.send((b"data: " if stream else b"") + self.lines(head, stream=stream))
            for number in range(size // len(CHUNK)):
                if asked.get("cut") and number == size // len(CHUNK) // 2:
                    self.close_connection = True
                    return
                self.send(CHUNK)
            self.send(self.lines(tail, stream=stream) + (b"\n\n" if stream else b""))
            if self.chunked:
                self.wfile.write(b"0\r\n\r\n")
        except ConnectionError:
            print("gone", flush=True)
            self.close_connection = True

    @staticmethod
    def lines(part: bytes, *, stream: bool) -> bytes:
        return part.replace(b"\n", b"\ndata: ") if stream else part

    def send(self, part: bytes) -> None:
        self.wfile.write(b"%x\r\n" % len(part) + part + b"\r\n" if self.chunked else part)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Say nothing of connections that end."""


server = Server(("127.0.0.1", 0), Handler)
print(f"http://127.0.0.1:{server.server_address[1]}/mcp", flush=True)
server.serve_forever()
