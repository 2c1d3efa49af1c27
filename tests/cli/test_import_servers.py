"""`server import`, with a daemon and without one."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from tests.harness import REPOSITORY, Place, clean_environment
from tests.needs import sandbox
from tests.service.admin.test_registry_file import ISSUES


def test_an_mcp_servers_file_is_imported_once_and_again_without_harm(either: Place) -> None:
    demo = REPOSITORY / "examples" / "demo.json"
    first = either.run("server", "import", demo, "--profile", "demo", "--json")
    assert first.json() == {
        "added": ["time", "notes"],
        "kept": [],
        "differs": [],
        "this_gateway": [],
        "refused": {},
        "notes": {},
        "profile": "demo",
    }
    again = either.run("server", "import", demo, "--profile", "demo", "--json")
    assert again.json() == {
        "added": [],
        "kept": ["time", "notes"],
        "differs": [],
        "this_gateway": [],
        "refused": {},
        "notes": {},
        "profile": "demo",
    }
    members = either.run("profile", "show", "demo", "--json").json()["servers"]
    assert [member["name"] for member in members] == ["time", "notes"]


@pytest.mark.nightly
def test_the_commands_of_a_file_are_all_put_into_a_sandbox(shipped: Place) -> None:
    sandbox()
    document = {"mcpServers": {"near": {"command": "x"}, "far": {"url": "https://x.example/mcp"}}}
    options = ("--sandbox", "--writable", shipped.root, "--no-network")
    done = shipped.run("server", "import", "-", *options, stdin=json.dumps(document))
    assert done.code == 0, done.stderr
    found = {one["name"]: one["sandbox"] for one in shipped.run("server", "list", "--json").json()}
    assert found == {"near": {"write": [str(shipped.root)], "network": False}, "far": None}


def test_one_bad_entry_of_a_file_costs_no_other(either: Place) -> None:
    text = """// of an editor
    {"mcpServers": {"good": {"command": "x"}, "bad": {"type": "pigeon"}, "Two Words": {"command": "y"},}}"""
    done = either.run("server", "import", "-", stdin=text)
    assert done.code == 3
    assert "left   bad  The server 'bad' has the type 'pigeon'; the gateway speaks" in done.stderr
    assert "it was called 'Two Words'" in done.stdout
    stored = either.run("server", "list", "--json").json()
    assert [server["name"] for server in stored] == ["Two-Words", "good"]
    changed = '{"mcpServers": {"good": {"command": "z"}, "Two Words": {"command": "y"}}}'
    again = either.run("server", "import", "-", stdin=changed, bare=False)
    assert (again.code, "with another command" in again.stdout) == (0, True)


def test_a_dry_run_of_an_import_stores_nothing(either: Place) -> None:
    text = '{"mcpServers": {"good": {"command": "x"}}}'
    assert (
        "would add  good  x" in either.run("server", "import", "-", "--dry-run", stdin=text).stdout
    )
    assert either.run("server", "list", "--json").json() == []


def test_a_dry_run_of_an_import_makes_no_database_and_tells_no_change(shipped: Place) -> None:
    text = '{"mcpServers": {"good": {"command": "x"}}}'
    dry_run = ("server", "import", "-", "--dry-run")
    assert shipped.run(*dry_run, stdin=text).code == 0
    assert not shipped.database.exists()
    with shipped.serve() as gateway:
        gateway.wait_ready()
        assert shipped.run(*dry_run, stdin=text).code == 0
        assert gateway.stop() == 0
        assert "server.changed" not in gateway.names()


def test_without_a_file_those_of_the_clients_here_are_listed(either: Place) -> None:
    none = either.run("server", "import")
    assert (none.code, "No client on this machine" in none.stderr) == (2, True)
    file = either.home / ".cursor" / "mcp.json"
    file.parent.mkdir()
    file.write_text('{"mcpServers": {"good": {"command": "x"}}}')
    found = either.run("server", "import")
    assert found.code == 2
    assert "1  Cursor: ~/.cursor/mcp.json  (1 server)" in found.stderr


DEEP = "[" * 100_000 + "]" * 100_000
BAD = {
    "half of a character": ('{"mcpServers": {"a": {"command": "\\ud800"}}}', "is not valid text"),
    "half of a character in a name": (
        '{"mcpServers": {"\\udc00": {"command": "x"}}}',
        "is not valid text",
    ),
    "deeper than can be read": (f'{{"mcpServers": {DEEP}}}', "nested too deep"),
    "lists where an object belongs": (
        '{"mcpServers": {"a": {"command": "x", "env": ' + "[" * 500 + "]" * 500 + "}}}",
        "nested deeper than 200 levels",
    ),
    "no UTF-8": ('{"mcpServers": {"a": {"command": "\udcff"}}}', "is not valid JSON"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_file_that_no_row_can_hold_is_refused_by_name(either: Place, what: str) -> None:
    text, said = BAD[what]
    file = either.root / "servers.json"
    file.write_bytes(text.encode(errors="surrogateescape"))
    done = either.run("server", "import", file)
    assert (done.code, said in done.stderr, "Unexpected" in done.stderr) == (2, True, False), done
    assert either.run("server", "list", "--json").json() == []


class Registry(BaseHTTPRequestHandler):
    """The part of the registry's API that is asked: one version of one server."""

    def do_GET(self) -> None:
        entries = {
            "/v0.1/servers/io.github.example%2Fissues/versions/latest": ("active", "1.4.0"),
            "/v0.1/servers/io.github.example%2Fissues/versions/1.0.0": ("deprecated", "1.0.0"),
        }
        found = entries.get(self.path)
        body = b"[" * 100_000 if "deep" in self.path else b"<html>"
        if found is not None:
            official = {"io.modelcontextprotocol.registry/official": {"status": found[0]}}
            answer = {"server": {**ISSUES, "version": found[1]}, "_meta": official}
            body = json.dumps(answer).encode()
        strange = "odd" in self.path or "deep" in self.path
        self.send_response(200 if found or strange else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def registry() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_server_of_a_registry_is_imported_by_its_name_and_asks_for_its_values(
    shipped: Place, registry: str
) -> None:
    env = {"LMG_UPSTREAM__REGISTRY_URL": registry}
    old = shipped.run("server", "import", "io.github.example/issues@1.0.0", "--dry-run", env=env)
    assert "the registry calls io.github.example/issues@1.0.0 deprecated" in old.stderr
    terminal, inside = pty.openpty()
    command = [*shipped.command, *shipped.options, "server", "import", "io.github.example/issues"]
    with subprocess.Popen(
        command, stdin=inside, stdout=inside, stderr=inside, cwd=shipped.root,
        env=clean_environment(shipped.home, **env), close_fds=True, start_new_session=True,
    ) as process:  # fmt: skip
        os.close(inside)
        text = ""
        for wanted, answer in (
            ("TRACKER_TOKEN", "s3cret"),
            ("TRACKER_URL", ""),
            ("root: ", "/srv"),
            ("when a client asks", "y"),
            ("added +issues", None),
        ):
            while not re.search(wanted, text):
                ready, _, _ = select.select([terminal], [], [], 20)
                assert ready, text
                text += os.read(terminal, 4096).decode()
            text = text[text.index(re.search(wanted, text)[0]) :]  # type: ignore[index]
            if answer is not None:
                os.write(terminal, f"{answer}\n".encode())
        assert process.wait(60) == 0
    os.close(terminal)
    assert "s3cret" not in text
    shown = shipped.run("server", "show", "issues", "--json").json()
    assert shown["args"][:2] == ["-y", "@example/issues@1.4.0"]
    assert b"s3cret" not in shipped.database.read_bytes()


@pytest.mark.parametrize(
    ("server", "path", "sentence"),
    [
        ("io.github.example/none", "", "has no server io.github.example/none."),
        ("io.github.example/odd", "/", "cannot be asked: its answer is not JSON."),
        ("io.github.example/deep", "", "cannot be asked: its answer is not JSON."),
    ],
)
def test_a_registry_that_does_not_help_is_told(
    place: Place, registry: str, server: str, path: str, sentence: str
) -> None:
    env = {"LMG_UPSTREAM__REGISTRY_URL": registry + path}
    done = place.run("server", "import", server, env=env)
    assert done.code in (1, 2)
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("", "and upstream.registry_url is not set."),
        ("file:///etc", "upstream.registry_url is not a URL: file:///etc."),
        ("http://[x", "upstream.registry_url is not a URL: http://[x."),
        ("http://127.0.0.1:x", "upstream.registry_url is not a URL: http://127.0.0.1:x."),
        (
            "http://127.0.0.1:9",
            "The registry http://127.0.0.1:9 cannot be asked: Connection refused.",
        ),
    ],
)
def test_an_address_without_a_registry_is_told(place: Place, url: str, sentence: str) -> None:
    env = {"LMG_UPSTREAM__REGISTRY_URL": url}
    done = place.run("server", "import", "io.github.example/issues", env=env)
    assert done.code in (1, 2)
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_what_a_client_limits_is_taken_over(shipped: Place) -> None:
    place = shipped
    (place.root / "vars").write_text("TOKEN=from-the-file\n")
    entry = {
        "command": "x",
        "timeout": 90,
        "disabledTools": ["delete", "drop"],
        "envFile": str(place.root / "vars"),
    }
    (place.root / "mcp.json").write_text(json.dumps({"mcpServers": {"one": entry}}))
    done = place.run("server", "import", "mcp.json", "--profile", "work")
    assert "a call may take 90 s, as in the file" in done.stdout
    assert "hidden, as in the file: delete, drop" in done.stdout
    shown = place.run("server", "show", "one", "--json", "--secrets").json()
    assert shown["timeout_s"] == 90
    assert shown["env"]["TOKEN"] == f"${{envFile:{place.root / 'vars'}#TOKEN}}"
    tools = place.run("profile", "show", "work", "--json").json()["tools"]
    assert [(tool["tool"], tool["enabled"]) for tool in tools] == [
        ("delete", False),
        ("drop", False),
    ]
