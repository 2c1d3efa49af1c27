"""`server add` and `edit`: how a server is shared, reached and restricted."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.cli.sealed import PLAIN, ran
from tests.harness import Place
from tests.needs import sandbox

TIME = (sys.executable, "-m", "mcp_server_time", "--local-timezone", "UTC")


def test_how_clients_share_a_server_is_set_and_changed(either: Place) -> None:
    either.run("server", "add", "time", "--share", "never", "--max-clients", "3", "--", *TIME)
    (listed,) = either.run("server", "list", "--json").json()
    assert (listed["share"], listed["max_clients"], listed["idle_stop_s"]) == ("never", 3, None)

    edited = either.run("server", "edit", "time", "--share", "always", "--idle-stop", "0")
    assert edited.code == 0, edited.stderr
    shown = either.run("server", "show", "time").stdout.splitlines()
    assert {"share    always", "clients  3", "idle     0 s"} <= set(shown)
    assert either.run("server", "edit", "time", "--max-clients", "0").code == 2


def test_how_a_server_is_reached_is_set_and_changed(either: Place, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.touch()
    given = ("--timeout", "9", "--proxy", "http://u:secret@proxy:3128", "--ca", str(ca))
    url = ("--url", "https://far.test/mcp")
    added = either.run("server", "add", "far", *url, *given, "--header-from-client", "X-User")
    assert added.code == 0, added.stderr
    shown = either.run("server", "show", "far").stdout.splitlines()
    assert {"timeout  9 s", f"ca       {ca}", "headers  X-User, from the client"} <= set(shown)
    assert "secret" not in "".join(shown)

    edited = either.run("server", "edit", "far", "--insecure", "--proxy", "none")
    assert "The certificate of this server is not checked" in edited.stderr
    (listed,) = either.run("server", "list", "--json").json()
    assert (listed["insecure"], listed["proxy"]) == (True, "none")
    assert listed["client_headers"] == ["X-User"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--proxy", "socks5://x:1"), "not the URL of an HTTP proxy"),
        (("--header-from-client", "Mcp-Session-Id"), "cannot be taken over from clients"),
        (("--ca", "/no/such.pem"), "does not exist"),
        (("--timeout", "0"), "0 is not in the range"),
    ],
)
def test_what_a_server_cannot_be_reached_with_is_refused(
    shipped: Place, options: tuple[str, ...], said: str
) -> None:
    url = ("--url", "https://far.test/mcp")
    done = shipped.run("server", "add", "far", *url, *options)
    assert (done.code, said in done.stderr) == (2, True), done.stderr


def test_a_command_has_no_proxy_of_its_own(shipped: Place) -> None:
    done = shipped.run("server", "add", "time", "--proxy", "http://p:1", "--", *TIME)
    assert done.code == 2
    assert "is a command and has no proxy" in done.stderr
    assert "--env HTTPS_PROXY=…" in done.stderr


def test_a_command_in_a_sandbox_runs_in_it_and_says_so(shipped: Place) -> None:
    sandbox()
    inside, key = shipped.root / "inside", shipped.home / ".ssh" / "id"
    inside.mkdir()
    key.parent.mkdir()
    key.write_text("a key")
    options = ("--sandbox", "--writable", inside, "--no-network")
    ran(shipped, "server", "add", "box", *options, "--", *PLAIN)
    assert "sandbox: " in ran(shipped, "server", "list")
    shown = shipped.run("server", "show", "box", "--json").json()
    assert shown["sandbox"] == {"write": [str(inside)], "network": False}
    assert f"writes {inside}, no network" in ran(shipped, "server", "show", "box")
    ran(shipped, "server", "test", "box")
    assert "hello" in ran(shipped, "call", "echo", "text=hello")
    assert "sandbox" in ran(shipped, "doctor", code=shipped.run("doctor").code)
    ran(shipped, "server", "edit", "box", "--no-sandbox")
    assert shipped.run("server", "show", "box", "--json").json()["sandbox"] is None
    refused = shipped.run("server", "edit", "box", "--no-network")
    assert "belong to a sandbox" in refused.stderr
    refused = shipped.run("server", "add", "far", "--url", "http://x.example/mcp", "--sandbox")
    assert "its program runs elsewhere" in refused.stderr


def test_a_secret_belongs_to_a_client_id(shipped: Place) -> None:
    address = ("far", "https://far.test/mcp", "--no-test")
    assert shipped.run("server", "add", *address).code == 0
    refused = shipped.run("server", "edit", "far", "--client-secret")
    assert refused.code == 2
    assert "belongs to a client id" in refused.stderr
