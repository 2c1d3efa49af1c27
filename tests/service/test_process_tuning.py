"""More clients than the limit that shells and systemd give, and more than there is."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.request
from contextlib import ExitStack
from pathlib import Path

from tests.gateway.support import SERVERS
from tests.harness import DEADLINE_S, Place

FEW = ("sh", "-c", 'ulimit -Sn 100; exec "$@"', "sh")
NO_MORE = ("sh", "-c", 'ulimit -n 80; exec "$@"', "sh")
LOOKS = """
import anyio, os
from local_mcp_gateway.service import process_tuning
process_tuning.EVERY_S = 0.0
async def main():
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(process_tuning.give_memory_back)
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        taken = []
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            pass
        for _ in range(100):
            await anyio.lowlevel.checkpoint()
        print("looked", flush=True)
        tasks.cancel_scope.cancel()
anyio.run(main)
"""


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


def test_clients_beyond_every_limit_wait_and_the_log_says_so_once(shipped: Place) -> None:
    with shipped.serve(prefix=NO_MORE) as gateway:
        gateway.wait_ready()
        host, port = gateway.url.removeprefix("http://").split(":")
        with ExitStack() as clients:
            for _ in range(300):
                clients.enter_context(socket.create_connection((host, int(port)), timeout=60))
            told = gateway.wait_for("library.warned")
            assert "out of system resource" in told["message"]
        with urllib.request.urlopen(gateway.url + "/health/live", timeout=60) as reply:
            assert json.load(reply) == {"status": "alive"}
        assert gateway.stop() == 0
        assert gateway.names().count("library.warned") <= 3
        assert "service.refused" not in gateway.names()


def test_a_look_at_the_memory_that_finds_no_descriptor_is_made_again_later() -> None:
    """Once it ended the service, some seconds after clients had taken all of them."""
    command = (*NO_MORE, sys.executable, "-c", LOOKS)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE_S)
    assert (done.returncode, done.stdout) == (0, "looked\n"), done.stderr
