"""Servers and profiles over HTTP, by whoever can read the token."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local_mcp_gateway.errors import ConfigProblem
from local_mcp_gateway.gateway.clients.admission import CLOSE
from local_mcp_gateway.service.admin.rest import read_token, token_file, with_rest
from local_mcp_gateway.store.encryption import MARK
from tests.harness import REPOSITORY, Place, clean_environment
from tests.needs import sandbox
from tests.service.secrets.spoilt import SPOILT, spoil

PLAIN = str(REPOSITORY / "tests" / "gateway" / "servers" / "plain.py")
Ask = Callable[..., tuple[int, Any]]
MAKE = """
import sys
from pathlib import Path
from local_mcp_gateway.service.admin.rest import read_token
read_token(Path(sys.argv[1]))
"""


@pytest.fixture
def ask(shipped: Place) -> Iterator[Ask]:
    with shipped.serve() as gateway:
        gateway.wait_ready()
        token = token_file(shipped.database).read_text().strip()

        def ask(
            method: str, path: str, body: Any = None, *, raw: bytes | None = None, **headers: str
        ) -> tuple[int, Any]:
            data = raw if body is None else json.dumps(body).encode()
            kind = {"Content-Type": "application/json"}
            headers = {"Authorization": f"Bearer {token}", **kind, **headers}
            request = urllib.request.Request(gateway.url + path, data, headers, method=method)
            try:
                with urllib.request.urlopen(request, timeout=60) as reply:
                    return reply.status, json.load(reply)
            except urllib.error.HTTPError as error:
                return error.code, json.load(error)

        yield ask
        assert gateway.stop() == 0


def call(tool: str) -> dict[str, Any]:
    params = {"name": tool, "arguments": {}}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


def status_of(url: str, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url + "/api/servers", headers=headers), timeout=60
        ) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_a_token_that_is_sent_is_stored_sealed_and_never_told(ask: Ask, shipped: Place) -> None:
    server = {"name": "plain", "command": sys.executable, "args": [PLAIN], "env": {"A": "hunter2"}}
    ask("POST", "/api/servers", server)
    pid = ask("POST", "/mcp", call("pid"))[1]["result"]["content"][0]["text"]
    assert "A=hunter2" in Path(f"/proc/{pid}/environ").read_text().split("\0")
    assert "hunter2" not in json.dumps(ask("GET", "/api/servers/plain")[1])
    ((stored,),) = shipped.query("SELECT env FROM mcp_servers")
    assert json.loads(stored)["A"].startswith(MARK)


def test_a_server_is_added_used_edited_and_removed_without_a_restart_or_a_leak(
    ask: Ask, validate_json: Callable[[str, Any], None]
) -> None:
    server = {"name": "plain", "command": sys.executable, "args": [PLAIN], "profile": "work"}
    status, added = ask("POST", "/api/servers", server)
    assert status == 201
    validate_json("server-add", added)
    first = int(ask("POST", "/mcp/work", call("pid"))[1]["result"]["content"][0]["text"])

    status, edited = ask("PATCH", "/api/servers/plain", {"env": {"A": "secret"}})
    assert (status, edited["env"]) == (200, {"A": "[redacted]"})
    assert edited["args"] == [PLAIN]
    second = int(ask("POST", "/mcp/work", call("pid"))[1]["result"]["content"][0]["text"])
    assert gone(first)

    validate_json("server-list", ask("GET", "/api/servers")[1])
    validate_json("server-show", ask("GET", "/api/servers/plain")[1])
    assert ask("POST", "/api/servers/plain/test")[1]["protocol"]
    assert ask("DELETE", "/api/servers/plain") == (200, {"removed": "plain"})
    assert gone(second)
    assert ask("GET", "/api/servers/plain")[0] == 404


async def test_a_wrong_token_is_answered_as_late_as_one_that_is_shown_to_the_gateway() -> None:
    held: list[dict[str, Any]] = []

    async def hold() -> list[tuple[bytes, bytes]]:
        assert held == [], "not before anything is said"
        return [CLOSE]

    async def send(message: dict[str, Any]) -> None:
        held.append(message)

    unused: Any = None
    scope = {"type": "http", "method": "GET", "path": "/api/servers", "headers": []}
    serve = with_rest(unused, "t" * 32, unused, unused, unused, hold)
    await serve(scope, unused, send)
    assert held[0]["status"] == 401
    assert CLOSE in held[0]["headers"]


def test_a_sandbox_is_given_kept_and_taken_away(ask: Ask, shipped: Place) -> None:
    sandbox()
    allowed = {"write": [str(shipped.root)], "network": False}
    server = {"name": "plain", "command": sys.executable, "args": [PLAIN], "sandbox": allowed}
    assert ask("POST", "/api/servers", server)[1]["sandbox"] == allowed
    assert ask("POST", "/api/servers/plain/test")[1]["protocol"]
    assert ask("PATCH", "/api/servers/plain", {"env": {"A": "1"}})[1]["sandbox"] == allowed
    status, body = ask("PATCH", "/api/servers/plain", {"sandbox": {"write": ["x"]}})
    assert (status, body["error"]["message"]) == (400, "'x' is not a full path.")
    status, body = ask("PATCH", "/api/servers/plain", {"sandbox": {"write": ["/no/such"]}})
    assert (status, "'/no/such' does not exist" in body["error"]["message"]) == (400, True)
    assert ask("PATCH", "/api/servers/plain", {"sandbox": None})[1]["sandbox"] is None


def test_a_profile_and_its_tools_are_changed(ask: Ask) -> None:
    ask("POST", "/api/servers", {"name": "plain", "command": sys.executable, "args": [PLAIN]})
    assert ask("POST", "/api/profiles", {"name": "work", "servers": ["plain"]})[0] == 201
    status, changed = ask("PATCH", "/api/profiles/work/tools/plain/echo", {"rename": "say"})
    assert (status, changed["tools"][0]["name"]) == (200, "say")
    assert "result" in ask("POST", "/mcp/work", call("say"))[1]
    renamed = ask("PATCH", "/api/profiles/work", {"rename": "play", "prefix": "always"})[1]
    assert (renamed["name"], renamed["prefix"]) == ("play", "always")
    names = [profile["name"] for profile in ask("GET", "/api/profiles")[1]]
    assert names == ["default", "play"]
    assert ask("DELETE", "/api/profiles/play")[0] == 200


def test_without_the_token_nobody_is_let_in(ask: Ask) -> None:
    server = {"name": "x", "command": "y"}
    for header in ("", "Bearer", "Bearer ", "Bearer wrong", "Basic abc", "Bearer \xe9"):
        status, body = ask("POST", "/api/servers", server, Authorization=header)
        assert status == 401
        assert ".token" in body["error"]["hint"]
    assert ask("GET", "/api/servers") == (200, [])


def test_the_token_of_a_client_sees_its_profiles_and_nothing_else(ask: Ask) -> None:
    for name in ("work", "home"):
        assert ask("POST", "/api/profiles", {"name": name, "description": "d"})[0] == 201
    status, made = ask("POST", "/api/tokens", {"name": "ci", "profiles": ["work"]})
    assert status == 201
    client = {"Authorization": f"Bearer {made['token']}"}
    work = {"name": "work", "description": "d"}
    assert ask("GET", "/api/profiles", **client) == (200, [work])
    assert ask("GET", "/api/profiles/work", **client) == (200, work)
    assert ask("GET", "/api/profiles/home", **client)[0] == 404
    for method, path in (
        *(("GET", "/api/servers"), ("GET", "/api/tokens"), ("GET", "/api/audit")),
        *(
            ("DELETE", "/api/profiles/work"),
            ("PATCH", "/api/profiles/work"),
            ("POST", "/api/servers"),
        ),
    ):
        status, body = ask(method, path, {}, **client)
        assert (status, "'ci' is a client's" in body["error"]["message"]) == (403, True)
    edited = ask("PATCH", "/api/tokens/ci", {"expires": "1d", "policy": {"read_only": True}})[1]
    assert (edited["profiles"], edited["policy"]["read_only"]) == (["work"], True)
    assert ask("DELETE", "/api/tokens/ci")[0] == 200
    status, body = ask("GET", "/api/profiles", **client)
    assert (status, "was revoked" in body["error"]["message"]) == (401, True)


REFUSED = [
    ("POST", "/api/servers", b"{", 400, "cannot be used"),
    ("POST", "/api/servers", b"[]", 400, "cannot be used"),
    ("POST", "/api/servers", b'{"name":"x","args":"y"}', 400, "Expected `array`"),
    ("POST", "/api/servers", b'{"name":"x","colour":1}', 400, "unknown field `colour`"),
    ("POST", "/api/servers", b'{"command":"x"}', 400, "needs a name"),
    ("POST", "/api/servers", b'{"name":"x"}', 400, "has no command"),
    ("POST", "/api/servers", b'{"name":"a b","command":"x"}', 400, "cannot be the name"),
    ("PATCH", "/api/servers/nobody", b"{}", 404, "no server 'nobody'"),
    ("GET", "/api/servers/a/b/c", None, 404, "There is no GET"),
    ("PUT", "/api/servers", b"{}", 404, "There is no PUT"),
    ("POST", "/api/profiles", b'{"name":"x","servers":["ghost"]}', 400, "no server 'ghost'"),
]


def test_what_cannot_be_done_is_said_in_one_sentence(ask: Ask) -> None:
    for method, path, raw, expected, said in REFUSED:
        status, body = ask(method, path, raw=raw)
        assert (status, said in body["error"]["message"]) == (expected, True), body
        assert body["error"]["hint"]


def test_the_token_is_kept_and_only_its_owner_reads_it(shipped: Place) -> None:
    tokens = []
    for _ in range(2):
        with shipped.serve() as gateway:
            gateway.wait_ready()
            tokens.append(token_file(shipped.database).read_text())
            gateway.stop()
    assert tokens[0] == tokens[1]
    assert len(tokens[0].strip()) > 40
    assert token_file(shipped.database).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("left", ["", "\n", "abc", "\0" * 44, "a b " * 20, "x" * 31])
def test_a_token_that_was_not_written_to_its_end_is_made_again(shipped: Place, left: str) -> None:
    path = token_file(shipped.database)
    shipped.database.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(left)
    path.chmod(0o600)
    with shipped.serve() as gateway:
        gateway.wait_ready()
        token = path.read_text().strip()
        shown = [left.strip("\0\n"), "", token]
        assert [status_of(gateway.url, given) for given in shown] == [401, 401, 200]
        assert gateway.stop() == 0
    assert len(token) > 40
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("fault", ["signal=KILL", "error=ENOSPC"])
def test_a_start_that_dies_while_it_writes_the_token_leaves_none(
    tmp_path: Path, needs_strace: None, fault: str
) -> None:
    path = token_file(tmp_path / "a.db")
    where = ["-P", str(path), "-P", str(path.with_name(f".{path.name}.tmp"))]
    tracing = ["strace", "-f", "-qq", "-o", os.devnull, "-e", "trace=write", *where]
    made = subprocess.run(
        [*tracing, "-e", f"inject=write:{fault}", sys.executable, "-c", MAKE, tmp_path / "a.db"],
        env=clean_environment(tmp_path),
        check=False,
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert made.returncode != 0
    assert not path.exists()
    assert len(read_token(tmp_path / "a.db")) > 40
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("how", SPOILT)
def test_a_token_that_somebody_else_may_know_is_refused(tmp_path: Path, how: str) -> None:
    read_token(tmp_path / "a.db")
    said = spoil(token_file(tmp_path / "a.db"), how)
    with pytest.raises(ConfigProblem, match=said) as raised:
        read_token(tmp_path / "a.db")
    assert raised.value.hint
