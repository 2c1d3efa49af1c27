"""What `doctor` says of the servers, as a person reads it."""

from __future__ import annotations

import http.server
import json
import sys
import threading
from pathlib import Path
from typing import Any

from tests.harness import Place
from tests.service.doctor.found import findings


def test_an_upstream_command_that_is_not_there_is_named_with_what_to_do(shipped: Place) -> None:
    shipped.run("server", "add", "ghost", "--", "no-such-command-anywhere")
    done = shipped.run("doctor")
    assert done.code == 3
    assert "ghost: the command 'no-such-command-anywhere' is not found." in done.stdout
    assert "→ Install it" in done.stdout


def test_a_server_that_wants_a_sign_in_is_told_with_what_to_do(shipped: Place) -> None:
    """By `server test`, and while the gateway runs by `server list` and `doctor`."""

    class Refusing(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Say nothing."""

        def do_POST(self) -> None:
            self.send_response(401)
            self.send_header("Content-Length", "0")
            self.end_headers()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/mcp"
        assert shipped.run("server", "add", "hub", "--url", url).code == 0
        with shipped.serve() as gateway:
            gateway.wait_for("service.ready")
            said = shipped.run("server", "test", "hub").stderr
            assert "it wants you to sign in (HTTP 401)" in said
            assert "`server edit hub --header Authorization=…`" in said
            assert shipped.run("call", "anything").code != 0
            gateway.wait_for("upstream.lost")
            assert "needs sign-in" in shipped.run("server", "list").stdout
            finding = findings(shipped)["server"]
            assert finding["state"] == "problem"
            assert finding["message"].startswith("hub: it wants you to sign in (HTTP 401)")
            assert finding["hint"] == "Sign in with `server login hub`."
        server.shutdown()


def test_tools_that_are_renamed_or_left_out_are_told(shipped: Place) -> None:
    """A name that model APIs refuse, and a tool that clients could not read."""
    scripted = Path(__file__).parents[2] / "gateway" / "servers" / "scripted.py"
    dotted = {"name": "files.read", "inputSchema": {"type": "object"}}
    script = {"answers": {"tools/list": {"tools": [dotted, {"name": "odd"}]}}}
    command = (sys.executable, str(scripted), json.dumps(script))
    added = shipped.run("server", "add", "github.com", "--", *command)
    assert "In front of a tool's name it is written github_com" in added.stdout
    with shipped.serve() as gateway:
        gateway.wait_for("service.ready")
        tried = shipped.run("server", "test", "github.com").stdout.splitlines()
        assert "offers tools, 1 tool (" in tried[0]
        assert tried[1:] == [
            "tools/list: 'odd' is left out: it has no inputSchema",
            "'files.read' is shown as 'files_read'",
        ]
        assert shipped.run("call", "files_read").code == 0
        gateway.wait_for("catalog.saved")
        notes = json.loads(shipped.run("doctor", "--json").stdout)["findings"]
        told = [finding["message"] for finding in notes if finding["state"] == "note"]
        assert any("'files.read', so it is shown as 'files_read'" in each for each in told)
        assert any("'odd' is left out: it has no inputSchema" in each for each in told)
