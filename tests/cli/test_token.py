"""`token …`: clients are known by tokens, at every endpoint of the gateway."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.types import ToolListChangedNotification

from tests.harness import REPOSITORY, Place, clean_environment

PLAIN = (sys.executable, str(REPOSITORY / "tests" / "gateway" / "servers" / "plain.py"))
PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
STRICT = {"LMG_GATEWAY__REQUIRE_TOKEN": "always"}


@pytest.fixture
def plain(shipped: Place) -> Place:
    assert shipped.run("server", "add", "plain", "--", *PLAIN).code == 0
    return shipped


def ping(url: str, token: str | None = None, path: str = "/mcp", **headers: str) -> tuple[int, Any]:
    shown = {} if token is None else {"Authorization": f"Bearer {token}"}
    kind = {"Content-Type": "application/json", **shown, **headers}
    request = urllib.request.Request(url + path, json.dumps(PING).encode(), kind)
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_a_token_is_printed_once_and_kept_as_a_hash(plain: Place) -> None:
    made = plain.run("token", "create", "ci")
    token = made.stdout.strip()
    assert made.stdout == f"{token}\n"
    assert token.startswith("lmg_")
    assert "not shown again" in made.stderr
    kept = plain.query("SELECT * FROM client_tokens")
    assert token.rpartition("_")[2] not in str(kept)
    assert token not in plain.run("token", "list").stdout
    again = plain.run("token", "create", "ci")
    assert (again.code, "There is a token 'ci' already" in again.stderr) == (2, True)


def test_a_token_in_a_file_is_for_its_owner_alone_and_replaces_nothing(plain: Place) -> None:
    file = plain.root / "ci.token"
    made = plain.run("token", "create", "ci", "--file", file, "--json").json()
    assert (made["token"], made["file"]) == (None, str(file))
    assert file.stat().st_mode & 0o777 == 0o600
    refused = plain.run("token", "create", "other", "--file", file)
    assert (refused.code, "is there already" in refused.stderr) == (2, True)
    assert [token["name"] for token in plain.run("token", "list", "--json").json()] == ["ci"]


@pytest.mark.parametrize("expires", ["0d", "90", "9999999w", "d", "-1d"])
def test_a_lifetime_that_is_none_is_refused(plain: Place, expires: str) -> None:
    refused = plain.run("token", "create", "ci", f"--expires={expires}")
    assert (refused.code, "90d" in refused.stderr) == (2, True)
    assert plain.run("token", "list").stdout.startswith("There is no token")


def test_beyond_loopback_the_gateway_serves_only_where_there_are_tokens(plain: Place) -> None:
    everywhere = ("--host", "0.0.0.0")
    with plain.serve(*everywhere) as gateway:
        assert gateway.wait() == 7
    refused = plain.run("startup").stdout
    assert "Without tokens the gateway listens on loopback only" in refused
    token = plain.run("token", "create", "ci").stdout.strip()
    with plain.serve(*everywhere) as gateway:
        url = gateway.wait_ready().url.replace("0.0.0.0", "127.0.0.1")
        assert ping(url)[0] == 401
        assert ping(url, token)[0] == 200
        assert plain.run("token", "revoke", "ci", "--yes").code == 0
        assert ping(url, token)[0] == 401
        # The gateway's own commands need none: they come over its control socket.
        assert plain.run("call", "echo", "a=1").code == 0


def test_on_loopback_a_token_is_wanted_only_where_the_settings_say_so(plain: Place) -> None:
    token = plain.run("token", "create", "ci").stdout.strip()
    with plain.serve() as gateway:
        url = gateway.wait_ready().url
        assert (ping(url)[0], ping(url, token)[0], ping(url, token[:-1])[0]) == (200, 200, 401)
        assert gateway.stop() == 0
    with plain.serve(env=STRICT) as gateway:
        url = gateway.wait_ready().url
        assert (ping(url)[0], ping(url, token)[0]) == (401, 200)


@pytest.mark.parametrize("given", ["file", "variable"])
async def test_the_bridge_shows_a_token(plain: Place, given: str) -> None:
    file = plain.root / "ci.token"
    assert plain.run("token", "create", "ci", "--file", file).code == 0
    with plain.serve(env=STRICT) as gateway:
        url = gateway.wait_ready().url
        by_file = given == "file"
        shown = {} if by_file else {"LMG_TOKEN": file.read_text().strip()}
        args = ["-m", "local_mcp_gateway", "stdio", "--url", url]
        parameters = StdioServerParameters(
            command=sys.executable,
            args=[*args, *(["--token-file", str(file)] if by_file else [])],
            env={**clean_environment(plain.home), **shown},
        )
        async with Client(parameters) as client:
            assert len((await client.list_tools()).tools) == 13
        refused = subprocess.run(
            [sys.executable, *args],
            input=json.dumps(HELLO) + "\n",
            env=clean_environment(plain.home),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (refused.returncode, "This gateway wants a token" in refused.stderr) == (2, True)


HELLO = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "t", "version": "1"},
    },
}


def test_connect_writes_where_the_token_is_and_never_the_token(plain: Place) -> None:
    token, file = plain.root / "ci.token", plain.root / "mcp.json"
    connect = ("connect", "cursor", "--file", file, "--token-file", token, "--yes")
    absent = plain.run(*connect)
    assert (absent.code, "does not exist" in absent.stderr, file.exists()) == (2, True, False)
    plain.run("token", "create", "ci", "--file", token)
    assert plain.run(*connect).code == 0
    entry = json.loads(file.read_text())["mcpServers"]["local-gateway"]
    assert entry["args"][-2:] == ["--token-file", str(token)]
    assert token.read_text().strip() not in file.read_text()
    token.chmod(0o644)
    assert "other users can read" in plain.run(*connect).stderr
    Path(token).write_text("")
    token.chmod(0o600)
    assert "holds no token" in plain.run(*connect).stderr


def test_a_reload_wants_tokens_from_now_on_and_ends_what_shows_none(plain: Place) -> None:
    token = plain.run("token", "create", "ci").stdout.strip()
    config = plain.root / "gateway.toml"
    config.write_text("")
    options = ("--config", str(config), *plain.options)
    with plain.serve(options=options) as gateway:
        url = gateway.wait_ready().url
        assert ping(url)[0] == 200
        config.write_text('[gateway]\nrequire_token = "always"\n')
        changed = plain.run("reload", "--json").json()
        assert (changed["changed"], changed["needs_restart"]) == (["gateway.require_token"], [])
        assert (ping(url)[0], ping(url, token)[0]) == (401, 200)


async def test_an_edited_token_reaches_something_else_from_the_next_request_on(
    plain: Place, validate_json: Callable[[str, Any], None]
) -> None:
    token = plain.run("token", "create", "ci").stdout.strip()
    assert plain.run("profile", "add", "other", "plain").code == 0
    with plain.serve(env=STRICT) as gateway:
        url = gateway.wait_ready().url
        told = asyncio.Event()

        async def on_message(message: object) -> None:
            if isinstance(message, ToolListChangedNotification):
                told.set()

        shown = {"Authorization": f"Bearer {token}"}
        async with httpx2.AsyncClient(headers=shown, timeout=60) as http_client:
            transport = streamable_http_client(f"{url}/mcp", http_client=http_client)
            async with Client(transport, mode="legacy", message_handler=on_message) as client:
                assert len((await client.list_tools()).tools) == 13
                options = ("--tools", "echo", "--rename", "desk", "--expires", "90d", "--json")
                done = await asyncio.to_thread(plain.run, "token", "edit", "ci", *options)
                validate_json("token-edit", done.json())
                await asyncio.wait_for(told.wait(), 60)
                assert [tool.name for tool in (await client.list_tools()).tools] == ["echo"]
        edit = ("token", "edit", "desk")
        assert plain.run(*edit, "--profile", "other", "--json").json()["profiles"] == ["other"]
        assert ping(url, token, "/mcp/default")[0] == 404
        changed = plain.run(*edit, "--profile", "*", "--expires", "never", "--json").json()
        assert (changed["profiles"], changed["expires_at"]) == (None, None)
        assert changed["policy"]["allowed"] == ["echo"], "what is not given stays"
        assert ping(url, token, "/mcp/default")[0] == 200
        assert plain.run(*edit, "--profile", "none").code == 2
