"""Start the gateway in dev mode with two demo servers: what `make run` does.

    python examples/run_demo.py [OPTIONS OF serve]

Its database is `.demo/gateway.db` in the clone (`examples/demo.toml`), so a gateway that is installed, and
its data, are left alone. The first run stores the servers of `demo.json` in the profile `demo`; later runs
leave what is stored alone. The notes server runs as long as the gateway does, unless one is running at its
address already.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from types import FrameType

HERE = Path(__file__).parent
GATEWAY = (sys.executable, "-m", "local_mcp_gateway", "--config", "examples/demo.toml")
PORT = 3001
NOTES_S = 20.0


def main() -> int:
    os.chdir(HERE.parent)
    Path(".demo").mkdir(mode=0o700, exist_ok=True)
    servers = json.loads(run("server", "list", "--json"))
    if not servers:
        servers = [store_demo()]
    notes = next((server for server in servers if server["name"] == "notes"), None)
    example = start_notes(urlsplit(notes["url"]).port or 0) if notes else None
    try:
        return serve([*port(sys.argv[1:]), *sys.argv[1:]])
    finally:
        if example is not None:
            example.terminate()
            example.wait()


def run(*arguments: str, stdin: str = "") -> str:
    """Run a command of the gateway; its own words say what is wrong if it fails."""
    done = subprocess.run(
        [*GATEWAY, *arguments], input=stdin, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def store_demo() -> dict[str, Any]:
    """Store the servers of demo.json: this interpreter as `python`, and a port that is free."""
    demo = json.loads((HERE / "demo.json").read_text())
    servers: dict[str, dict[str, Any]] = demo["mcpServers"]
    servers["time"]["command"] = sys.executable
    notes = {"name": "notes", **servers["notes"]}
    port = urlsplit(notes["url"]).port or 0
    if answers(port):
        with socket.create_server(("127.0.0.1", 0)) as free:
            notes["url"] = f"http://127.0.0.1:{free.getsockname()[1]}/mcp"
        servers["notes"]["url"] = notes["url"]
    run("server", "import", "-", "--profile", "demo", stdin=json.dumps(demo))
    return notes


def port(arguments: list[str]) -> list[str]:
    """Return the option of another port where the usual one is taken, by an installed gateway perhaps."""
    chosen = (
        any(word.startswith("--port") for word in arguments) or "LMG_GATEWAY__PORT" in os.environ
    )
    if chosen or not answers(PORT):
        return []
    free = next(number for number in range(PORT + 2, PORT + 100) if not answers(number))
    print(f"Port {PORT} is in use, so this gateway takes {free}.", flush=True)
    return ["--port", str(free)]


def start_notes(port: int) -> subprocess.Popen[bytes] | None:
    """Start the notes server and wait until it answers: then the first list of tools is whole."""
    if not port or answers(port):
        return None
    command = (sys.executable, str(HERE / "notes_server.py"), "--port", str(port))
    # In a group of its own: Ctrl+C is for the gateway, which has calls in flight to finish.
    # What it has to say would stand between the gateway's events, which tell when it is lost.
    notes = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    end = time.monotonic() + NOTES_S
    while not answers(port) and notes.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    return notes


def answers(port: int) -> bool:
    """Tell whether something listens on this port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def serve(arguments: list[str]) -> int:
    """Run the gateway until it ends; what asks us to stop asks it."""
    gateway = subprocess.Popen([*GATEWAY, "serve", "--dev", *arguments])

    def pass_on(number: int, _: FrameType | None) -> None:
        gateway.send_signal(number)

    signal.signal(signal.SIGTERM, pass_on)
    # A terminal sends Ctrl+C to the gateway as well as to us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return gateway.wait()


if __name__ == "__main__":
    sys.exit(main())
