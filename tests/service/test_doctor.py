"""`doctor`, `config` and `completion`, as a person runs them."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Place


def findings(place: Place) -> dict[str, dict[str, Any]]:
    done = place.run("doctor", "--json")
    assert done.code in {0, 3}, done.stderr
    return {finding["check"]: finding for finding in done.json()["findings"]}


def test_a_fresh_machine_has_no_problem(shipped: Place) -> None:
    assert shipped.run("db", "migrate").code == 0
    shipped.database.parent.chmod(0o700)
    found = findings(shipped)
    assert {name for name, finding in found.items() if finding["state"] == "problem"} == set()
    assert list(found)[:5] == ["python", "sqlite", "folder", "filesystem", "room"]
    assert found["database"]["message"].startswith("current, ")


def test_before_the_first_start_nothing_is_a_problem_either(shipped: Place) -> None:
    assert shipped.run("doctor", "--json", bare=True).code == 0


def test_an_upstream_command_that_is_not_there_is_named_with_what_to_do(shipped: Place) -> None:
    shipped.run("server", "add", "ghost", "--", "no-such-command-anywhere")
    done = shipped.run("doctor")
    assert done.code == 3
    assert "ghost: the command 'no-such-command-anywhere' is not found." in done.stdout
    assert "→ Install it" in done.stdout


def test_history_that_does_not_fit_is_a_problem_with_its_hint(shipped: Place) -> None:
    shipped.run("db", "migrate")
    shipped.folder.write("0002_add_debug_logs", "CREATE TABLE other (id INTEGER)")
    finding = findings(shipped)["database"]
    assert finding["state"] == "problem"
    assert finding["hint"]


def test_files_that_others_may_read_are_noted_with_the_command_that_mends_it(
    shipped: Place,
) -> None:
    shipped.run("db", "migrate")
    shipped.database.chmod(0o644)
    finding = findings(shipped)["folder"]
    assert finding["state"] == "note"
    assert "chmod 600" in finding["hint"]


def test_a_port_in_use_is_noted_with_its_holder_but_not_when_it_is_ours(shipped: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = shipped.run("doctor", "--json", env={"LMG_GATEWAY__PORT": port})
        found = {finding["check"]: finding for finding in done.json()["findings"]}
        assert "is in use by" in found["port"]["message"]
    with shipped.serve() as gateway:
        port = gateway.url.rpartition(":")[2]
        done = shipped.run("doctor", "--json", env={"LMG_GATEWAY__PORT": port})
        found = {finding["check"]: finding for finding in done.json()["findings"]}
        assert found["port"]["state"] == "ok"
        assert str(gateway.process.pid) in found["lock"]["message"]


def test_the_port_is_ours_too_when_the_dev_supervisor_holds_its_socket(shipped: Place) -> None:
    with shipped.serve("--dev") as gateway:
        port = gateway.wait_ready().url.rpartition(":")[2]
        done = shipped.run("doctor", "--json", env={"LMG_GATEWAY__PORT": port})
        found = {finding["check"]: finding for finding in done.json()["findings"]}
        assert found["port"]["message"] == f"{port} is served by this gateway."


def test_doctor_never_takes_the_lock_of_a_running_gateway(shipped: Place) -> None:
    with shipped.serve() as gateway:
        gateway.wait_ready()
        assert findings(shipped)["database"]["state"] == "ok"
        assert gateway.stop() == 0


def test_a_shell_is_taught_the_commands(place: Place) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "_LOCAL_MCP_GATEWAY_COMPLETE" in place.run("completion", shell).stdout
    asked = {
        "_LOCAL_MCP_GATEWAY_COMPLETE": "bash_complete",
        "COMP_WORDS": "x ser",
        "COMP_CWORD": "1",
    }
    command = str(Path(sys.executable).with_name("local-mcp-gateway"))
    done = subprocess.run([command], env=asked, capture_output=True, text=True, check=False)
    assert {"plain,serve", "plain,server", "plain,service"} <= set(done.stdout.split())


LOADED = {
    "bash": """
        eval "$(local-mcp-gateway completion bash)"
        COMP_WORDS=(local-mcp-gateway db migr) COMP_CWORD=2
        _local_mcp_gateway_completion local-mcp-gateway
        echo "${COMPREPLY[@]}"
    """,
    "fish": """
        local-mcp-gateway completion fish | source
        complete -C 'local-mcp-gateway db migr'
    """,
    "zsh": """
        compdef() { registered="$*" }
        eval "$(local-mcp-gateway completion zsh)"
        compadd() { print -r -- "$@" }
        _describe() { print -r -- ${(P)3} }
        words=(local-mcp-gateway db migr) CURRENT=3
        [[ $registered == *local-mcp-gateway ]] && _local_mcp_gateway_completion
    """,
}


@pytest.mark.parametrize("shell", [shell for shell in LOADED if shutil.which(shell)])
def test_a_shell_that_has_loaded_the_completion_completes(place: Place, shell: str) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    home = {"HOME": str(place.home), "PATH": path}
    done = subprocess.run(
        [shell, "-c", LOADED[shell]], env=home, capture_output=True, text=True, check=True
    )
    assert "migrate" in done.stdout.split()[0]


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
    scripted = Path(__file__).parents[1] / "gateway" / "servers" / "scripted.py"
    dotted = {"name": "files.read", "inputSchema": {"type": "object"}}
    script = {"answers": {"tools/list": {"tools": [dotted, {"name": "odd"}]}}}
    command = (sys.executable, str(scripted), json.dumps(script))
    added = shipped.run("server", "add", "github.com", "--", *command)
    assert "Where its name stands before a tool's, it is github_com" in added.stdout
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
