"""`connect`: a client is pointed at the running gateway, after its change was shown."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cli.test_streams import on_terminal
from tests.harness import DEADLINE_S, Place, clean_environment

HELLO = {
    "jsonrpc": "2.0", "id": 1, "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"},
    },
}  # fmt: skip


def test_what_is_written_leads_to_the_running_gateway(
    shipped: Place, validate_json: Callable[[str, Any], None]
) -> None:
    assert shipped.run("profile", "add", "work").code == 0
    with shipped.serve() as gateway:
        gateway.wait_ready()
        done = shipped.run("connect", "claude-desktop", "--profile", "work", "--yes", "--json")
        assert done.code == 0, done.stderr
        validate_json("connect", done.json())
        assert done.json()["url"] == f"{gateway.url}/mcp/work"
        written = json.loads(Path(done.json()["file"]).read_text())
        entry = written["mcpServers"]["local-gateway"]
        bridge = subprocess.run(
            [entry["command"], *entry["args"]],
            input=json.dumps(HELLO) + "\n",
            capture_output=True,
            text=True,
            env=clean_environment(shipped.home),
            timeout=DEADLINE_S,
            check=False,
        )
        assert json.loads(bridge.stdout)["result"]["serverInfo"]
        lines = shipped.run("connect")
        assert lines.stdout.splitlines()[0] == f"{gateway.url}/mcp"
        validate_json("connect", shipped.run("connect", "--json").json())
        unknown = shipped.run("connect", "zed", "--profile", "zzz")
        assert (unknown.code, "; there is work." in unknown.stderr) == (2, True)


def test_a_person_sees_the_change_and_is_asked_first(place: Place) -> None:
    file = place.root / "mcp.json"
    file.write_text('{\n  "inputs": [] // none\n}\n')
    given = ("connect", "vscode", "--file", "mcp.json")
    declined = on_terminal(place, *given, typed="n\n")
    assert '"local-gateway": {' in declined
    assert "Nothing was done" in declined
    assert "local-gateway" not in file.read_text()
    assert "VS Code points to http://127.0.0.1:3001/mcp." in on_terminal(place, *given, typed="y\n")
    assert "// none" in file.read_text()
    undone = place.run(*given, "--undo", "--yes")
    assert "no longer has this entry" in undone.stdout
    assert file.read_text() == '{\n  "inputs": [] // none\n}\n'
    assert place.run("connect", "--undo").code == 2
