"""`server import`, with a daemon and without one."""

from __future__ import annotations

import json

import pytest

from tests.harness import REPOSITORY, Place
from tests.needs import sandbox


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
    assert "left   bad  The server 'bad' has the type 'pigeon'." in done.stderr
    assert "it was called 'Two Words'" in done.stdout
    stored = either.run("server", "list", "--json").json()
    assert [server["name"] for server in stored] == ["Two-Words", "good"]
    changed = '{"mcpServers": {"good": {"command": "z"}, "Two Words": {"command": "y"}}}'
    again = either.run("server", "import", "-", stdin=changed, bare=False)
    assert (again.code, "with another command" in again.stdout) == (0, True)


def test_a_dry_run_of_an_import_stores_nothing(either: Place) -> None:
    text = '{"mcpServers": {"good": {"command": "x"}}}'
    assert "added  good  x" in either.run("server", "import", "-", "--dry-run", stdin=text).stdout
    assert either.run("server", "list", "--json").json() == []


def test_without_a_file_those_of_the_clients_here_are_listed(either: Place) -> None:
    none = either.run("server", "import")
    assert (none.code, "No client on this machine" in none.stderr) == (2, True)
    file = either.home / ".cursor" / "mcp.json"
    file.parent.mkdir()
    file.write_text('{"mcpServers": {"good": {"command": "x"}}}')
    found = either.run("server", "import")
    assert found.code == 2
    assert f"1  Cursor: {file}  (1 server)" in found.stderr


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
