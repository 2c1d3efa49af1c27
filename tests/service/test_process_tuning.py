"""More clients than the limit that shells and systemd give."""

from __future__ import annotations

import json
import socket
import sys
import urllib.request
from contextlib import ExitStack
from pathlib import Path

from tests.gateway.support import SERVERS
from tests.harness import Place

FEW = ("sh", "-c", 'ulimit -Sn 100; exec "$@"', "sh")


def open_files(pid: int) -> str:
    limits = Path(f"/proc/{pid}/limits").read_text()
    return next(
        line.split()[3] for line in limits.splitlines() if line.startswith("Max open files")
    )


def test_more_clients_are_served_than_the_soft_limit_allows_and_children_keep_that_limit(
    shipped: Place,
) -> None:
    shipped.run("server", "add", "plain", "--", sys.executable, str(SERVERS / "plain.py"))
    with shipped.serve(prefix=FEW) as gateway, ExitStack() as clients:
        gateway.wait_ready()
        host, port = gateway.url.removeprefix("http://").split(":")
        for _ in range(200):
            clients.enter_context(socket.create_connection((host, int(port)), timeout=60))
        message = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": "pid", "arguments": {}},
        }
        request = urllib.request.Request(
            gateway.url + "/mcp",
            json.dumps(message).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            child = int(json.load(reply)["result"]["content"][0]["text"])
        assert open_files(child) == "100"
