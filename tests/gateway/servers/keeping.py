"""A server that keeps what one client tells it: its roots, a note and its log level, over stdio or HTTP.

It asks for roots after the handshake and when they change, as filesystem servers do. `--silent`: it asks
for none. `--http`: it prints its URL, and opens a session for each client (`--no-session`: it does not).
`--tasks`: it runs any tool as a task, on demand, and tells of the task after its answer.
Tools: `roots`, `note` (keeps `text`, returns what was kept), `log` (a log line, then its answer),
`later` (a log line after its answer), `work` (progress, then what the client answers to `method`), `pid`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Send = Callable[[dict[str, Any]], None]
SILENT = "--silent" in sys.argv
TASKS: Any = {"list": {}, "requests": {"tools": {"call": {}}}} if "--tasks" in sys.argv else None
TOOLS = ("roots", "note", "log", "later", "work", "pid")
LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")


class Kept:
    """What the server knows of one session."""

    def __init__(self) -> None:
        self.roots: list[str] = []
        self.note = ""
        self.level = 0
        self.asked = 0
        self.due = False
        """Whether roots are asked for with the next call."""
        self.capabilities: dict[str, Any] = {}
        self.tasks: dict[str, Any] = {}
        self.open: dict[str, tuple[Callable[[Any], None], Send]] = {}

    def ask(self, send: Send, method: str, params: Any, then: Callable[[Any], None]) -> None:
        self.asked += 1
        identity = f"q{self.asked}"
        self.open[identity] = then, send
        send({"jsonrpc": "2.0", "id": identity, "method": method, "params": params})

    def log(self, send: Send, level: str, data: Any) -> None:
        if LEVELS.index(level) >= self.level:
            params = {"level": level, "data": data}
            send({"jsonrpc": "2.0", "method": "notifications/message", "params": params})

    def ask_roots(self, send: Send, then: Callable[[], None] = lambda: None) -> None:
        def take(message: Any) -> None:
            found = message.get("result", {}).get("roots", [])
            self.roots = [root["uri"] for root in found]
            then()

        if SILENT or "roots" not in self.capabilities:
            then()
        else:
            self.ask(send, "roots/list", {}, take)

    def take(self, message: dict[str, Any], send: Send) -> None:
        method, identity = message.get("method"), message.get("id")
        params = message.get("params", {})
        if method is None:
            then, _ = self.open.pop(str(identity))
            then(message)
        elif method in {"notifications/initialized", "notifications/roots/list_changed"}:
            self.ask_roots(send)
        elif method == "tools/call" and "task" in params:
            self.begin(identity, params, send)
        elif method == "tools/call" and self.due:
            self.due = False
            self.ask_roots(send, lambda: self.call(identity, params, send))
        elif method == "tools/call":
            self.call(identity, params, send)
        elif identity is not None:
            send({"jsonrpc": "2.0", "id": identity, **self.answer(method, params)})

    def answer(self, method: str, params: Any) -> dict[str, Any]:
        if method == "initialize":
            self.capabilities = params["capabilities"]
            declared: dict[str, Any] = {"tools": {"listChanged": True}, "logging": {}}
            if TASKS is not None:
                declared["tasks"] = TASKS
            return {
                "result": {
                    "protocolVersion": "2025-06-18",
                    "capabilities": declared,
                    "serverInfo": {"name": "keeping", "version": "1"},
                }
            }
        if method == "tools/list":
            names = [*TOOLS, f"noted_{self.note}"] if self.note else TOOLS
            return {
                "result": {"tools": [{"name": n, "inputSchema": {"type": "object"}} for n in names]}
            }
        if method == "logging/setLevel":
            self.level = LEVELS.index(params["level"])
        if method in {"ping", "logging/setLevel"}:
            return {"result": {}}
        if method == "tasks/list":
            return {"result": {"tasks": list(self.tasks.values())}}
        if method == "tasks/get" and params["taskId"] in self.tasks:
            return {"result": self.tasks[params["taskId"]]}
        return {"error": {"code": -32601, "message": "no"}}

    def begin(self, identity: Any, params: Any, send: Send) -> None:
        """Make a task, which has ended by the time that the client hears of it a second time."""
        name = f"{len(self.tasks)}-{params['arguments']['data']}"
        at = "2026-01-01T00:00:00Z"
        task = {"taskId": name, "status": "working", "createdAt": at, "lastUpdatedAt": at}
        self.tasks[name] = ended = {**task, "ttl": None, "status": "completed"}
        send({"jsonrpc": "2.0", "id": identity, "result": {"task": {**task, "ttl": None}}})
        send({"jsonrpc": "2.0", "method": "notifications/tasks/status", "params": ended})

    def call(self, identity: Any, params: Any, send: Send) -> None:
        name, given = params["name"], params.get("arguments", {})

        def done(value: Any) -> None:
            content = [{"type": "text", "text": json.dumps(value)}]
            send({"jsonrpc": "2.0", "id": identity, "result": {"content": content}})

        if name == "roots":
            done(self.roots)
        elif name == "note":
            self.note, before = given.get("text", self.note), self.note
            if self.note != before:
                send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
            done(self.note)
        elif name == "log":
            self.log(send, given.get("level", "info"), given["data"])
            done("logged")
        elif name == "later":
            done("logged")
            self.log(send, "info", given["data"])
        elif name == "work":
            token = params.get("_meta", {}).get("progressToken")
            if token is not None:
                told = {"progressToken": token, "progress": 1, "message": given["text"]}
                send({"jsonrpc": "2.0", "method": "notifications/progress", "params": told})
            asked = {"text": given["text"]}
            self.ask(send, given["method"], asked, lambda m: done(m.get("result", m.get("error"))))
        else:
            done(os.getpid())


class Http(BaseHTTPRequestHandler):
    """A session for each client, by its header; what belongs to a call goes into the call's stream."""

    protocol_version = "HTTP/1.1"
    sessions: dict[str, Kept] = {}  # noqa: RUF012  one server
    shared = Kept()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._reply(405)

    def do_DELETE(self) -> None:
        gone = self.sessions.pop(self.headers.get("Mcp-Session-Id", ""), None)
        self._reply(200 if gone else 404)

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        named = self.headers.get("Mcp-Session-Id", "")
        headers = {}
        if "--no-session" in sys.argv:
            kept = self.shared
        elif message.get("method") == "initialize":
            named = os.urandom(8).hex()
            kept = self.sessions[named] = Kept()
            headers = {"Mcp-Session-Id": named}
        elif message.get("method") == "server/discover":
            kept = Kept()
        elif named not in self.sessions:
            return self._reply(404)
        else:
            kept = self.sessions[named]
        if message.get("method", "").startswith("notifications/"):
            kept.due = True  # a notification has no stream to ask in
            return self._reply(202)
        if "id" not in message or "method" not in message:
            kept.take(message, lambda _: None)
            return self._reply(202)
        self.send_response(200)
        for name, value in {
            "Content-Type": "text/event-stream",
            "Connection": "close",
            **headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        answered = threading.Event()

        def send(body: dict[str, Any]) -> None:
            self.wfile.write(f"data: {json.dumps(body)}\n\n".encode())
            self.wfile.flush()
            if body.get("id") == message["id"] and "method" not in body:
                answered.set()

        kept.take(message, send)
        answered.wait(30)
        self.close_connection = True
        return None

    def _reply(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


def main() -> None:
    if "--http" in sys.argv:
        server = ThreadingHTTPServer(("127.0.0.1", 0), Http)
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()
    kept, lock = Kept(), threading.Lock()

    def send(message: dict[str, Any]) -> None:
        with lock:
            print(json.dumps(message), flush=True)

    for line in sys.stdin:
        kept.take(json.loads(line), send)


if __name__ == "__main__":
    main()
