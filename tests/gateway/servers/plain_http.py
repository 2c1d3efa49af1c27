"""A Streamable HTTP server of the handshake era on the standard library, with sessions.

`hang` never answers, `hanging` answers once that is so, `drip` answers byte by byte, `reset` and `short` break off in the middle, and
`cancelled` answers when a call was cancelled. A process that is started again knows none of the old sessions.
"""

from __future__ import annotations

import argparse
import json
import secrets
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

sessions: set[str] = set()
TOOLS = ["echo", "raw", "headers", "hang", "crash", "junk", "redirect"]
TOOLS += ["drip", "reset", "short", "cancelled", "hanging"]
hanging, cancelled = threading.Event(), threading.Event()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.reply(405)

    def do_DELETE(self) -> None:
        self.reply(200)

    def do_POST(self) -> None:
        line = self.rfile.read(int(self.headers["Content-Length"]))
        message = json.loads(line)
        method, identity = message.get("method"), message.get("id")
        if method == "initialize":
            session = secrets.token_hex(8)
            sessions.add(session)
            result: Any = {
                "protocolVersion": message["params"]["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "plain-http", "version": "1"},
            }
            self.reply(200, self.result(identity, result), Mcp_Session_Id=session)
        elif self.headers["Mcp-Session-Id"] not in sessions:
            status = 404 if self.headers["Mcp-Session-Id"] else 400
            self.reply(status, b'{"error":"no such session"}')
        elif identity is None:
            if method == "notifications/cancelled":
                cancelled.set()
            self.reply(202)
        elif method == "tools/list":
            tools = [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]
            self.reply(200, self.result(identity, {"tools": tools}))
        else:
            self.call(identity, message["params"]["name"], line)

    def call(self, identity: Any, name: str, line: bytes) -> None:
        if name == "hang":
            hanging.set()
            threading.Event().wait(600)
        if name == "crash":
            self.reply(500, b"Internal Server Error")
            return
        if name == "redirect":
            self.reply(307, Location="http://127.0.0.1:9/elsewhere")
            return
        if name == "junk":
            self.reply(200, b"<html>")
            return
        if name in {"reset", "short"}:
            self.break_off(linger=name == "reset")
            return
        if name == "cancelled":
            cancelled.wait(30)
        if name == "hanging":
            hanging.wait(30)
        if name == "drip":
            self.drip(self.result(identity, {"content": [{"type": "text", "text": "drop"}]}))
            return
        headers = json.dumps({key.lower(): value for key, value in self.headers.items()})
        text = {"raw": line.decode(), "headers": headers}.get(name, "echo")
        self.reply(200, self.result(identity, {"content": [{"type": "text", "text": text}]}))

    def break_off(self, *, linger: bool) -> None:
        """Promise more than is sent, and close the connection, with a reset if it shall linger for 0 s."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b'{"jsonrpc":')
        self.wfile.flush()
        if linger:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def drip(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        for byte in body:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            time.sleep(0.005)  # slow by nature: byte by byte

    @staticmethod
    def result(identity: Any, result: Any) -> bytes:
        return json.dumps({"jsonrpc": "2.0", "id": identity, "result": result}).encode()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512
    """Five by itself: of two hundred that connect at once, some were heard after a minute."""

    def handle_error(self, *_: Any) -> None:
        """A client that broke off is no news."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    server = Server(("127.0.0.1", parser.parse_args().port), Handler)
    print(f"http://127.0.0.1:{server.server_address[1]}/mcp", flush=True)
    server.serve_forever()


main()
