"""Servers and profiles over HTTP, by whoever can read the token."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local_mcp_gateway.service.admin.rest import token_file
from local_mcp_gateway.store.secrets import MARK
from tests.harness import REPOSITORY, Place

PLAIN = str(REPOSITORY / "tests" / "gateway" / "servers" / "plain.py")
Ask = Callable[..., tuple[int, Any]]


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
    for header in ("", "Bearer wrong", "Basic abc"):
        status, body = ask("POST", "/api/servers", server, Authorization=header)
        assert status == 401
        assert ".token" in body["error"]["hint"]
    assert ask("GET", "/api/servers") == (200, [])


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
