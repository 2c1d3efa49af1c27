"""A stdio server that leaves the ways of the protocol when it is told to.

`--bom` begins its output with a byte order mark, as programs on Windows do.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

TOOLS = ("write", "deaf", "pester", "swarm")
CAPABILITIES: dict[str, Any] = {"tools": {}, "logging": {}}


def send(line: bytes) -> None:
    while line:
        line = line[os.write(1, line) :]


def answer(identity: Any, result: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": identity, "result": result}).encode() + b"\n"


def use(identity: Any, name: str, arguments: dict[str, Any]) -> None:
    """Be rude, and answer then, unless that is the rudeness."""
    if name == "write":  # any bytes, where ID is the id of this call
        send(bytes.fromhex(arguments["hex"]).replace(b"ID", str(identity).encode()))
        return
    if name == "deaf":  # read no more, and live on
        os.close(0)
        if arguments.get("answer"):
            send(answer(identity, {"content": [{"type": "text", "text": "deaf"}]}))
        signal.pause()
    if name == "pester":  # ask without end, and never read what is answered
        for number in range(10**9):
            send(b'{"jsonrpc":"2.0","id":"q%d","method":"ping"}\n' % number)
    if name == "swarm":  # so many news at once
        send(b'{"jsonrpc":"2.0","method":"notifications/x"}\n' * arguments["count"])
    send(answer(identity, {"content": [{"type": "text", "text": name}]}))


def main() -> None:
    if "--bom" in sys.argv:
        send(b"\xef\xbb\xbf")
    for line in sys.stdin.buffer:
        message = json.loads(line)
        if "id" not in message or "method" not in message:
            continue
        params = message.get("params", {})
        if message["method"] == "initialize":
            info = {"name": "rude", "version": "1"}
            known = {"protocolVersion": params["protocolVersion"], "serverInfo": info}
            send(answer(message["id"], {**known, "capabilities": CAPABILITIES}))
        elif message["method"] == "tools/list":
            tools = [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]
            send(answer(message["id"], {"tools": tools}))
        elif message["method"] == "tools/call":
            use(message["id"], params["name"], params.get("arguments", {}))
        else:
            send(answer(message["id"], {}))


main()
