"""What `doctor` says of the database, its replica and the servers, as a person reads it."""

from __future__ import annotations

import http.server
import json
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from local_mcp_gateway.gateway.upstreams import sandbox
from local_mcp_gateway.service.doctor import checks
from tests.harness import Place
from tests.service.doctor.found import findings


def test_an_upstream_command_that_is_not_there_is_named_with_what_to_do(shipped: Place) -> None:
    shipped.run("server", "add", "ghost", "--", "no-such-command-anywhere")
    done = shipped.run("doctor")
    assert done.code == 3
    assert "ghost: the command 'no-such-command-anywhere' is not found." in done.stdout
    assert "→ Install it" in done.stdout


@pytest.mark.parametrize(
    ("version", "boxed", "said"),
    [
        (
            0,
            ["box"],
            [("problem", "box: the kernel has no Landlock (Linux 5.13), or it is turned")],
        ),
        (0, [], [("note", "No server has one, and none can: the kernel has no Landlock")]),
        (5, ["box"], [("note", "box: in a sandbox signals can be sent to your other programs")]),
        (6, ["box"], [("ok", "The kernel has all that the sandbox of box needs.")]),
    ],
)
def test_what_the_kernel_cannot_do_for_a_sandbox_is_told(
    monkeypatch: pytest.MonkeyPatch, version: int, boxed: list[str], said: list[tuple[str, str]]
) -> None:
    monkeypatch.setattr(sandbox, "version", lambda: version)
    found = list(checks._sandboxes(boxed))
    assert [
        (each.state, each.message[: len(text)]) for each, (_, text) in zip(found, said, strict=True)
    ] == said


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


def test_history_that_does_not_fit_is_a_problem_with_its_hint(shipped: Place) -> None:
    shipped.run("db", "migrate")
    shipped.folder.write("0002_add_debug_logs", "CREATE TABLE other (id INTEGER)")
    finding = findings(shipped)["database"]
    assert finding["state"] == "problem"
    assert finding["hint"]


def test_doctor_never_takes_the_lock_of_a_running_gateway(shipped: Place) -> None:
    with shipped.serve() as gateway:
        gateway.wait_ready()
        assert findings(shipped)["database"]["state"] == "ok"
        assert gateway.stop() == 0


@pytest.mark.parametrize(
    ("hours", "state", "said"),
    [
        (1, "ok", "x was checked in the last 24 hours."),
        (25, "ok", "x was last checked 1 day ago."),
        (24 * 31, "note", "x was last checked 31 days ago."),
    ],
)
def test_the_last_check_of_the_replica_is_told_in_days(hours: int, state: str, said: str) -> None:
    found = checks._last_check("x", (datetime.now(UTC) - timedelta(hours=hours)).isoformat())
    assert (found.state, found.message) == (state, said)
