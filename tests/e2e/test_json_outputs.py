"""What scripts rely on: the form of every `--json` output, checked against its schema in docs/schemas."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from local_mcp_gateway.cli.main import cli
from tests.harness import REPOSITORY, Place

pytestmark = pytest.mark.e2e
Validate = Callable[[str, Any], None]


def commands_with_json() -> Iterator[str]:
    """Yield the names of the commands that take `--json`, such as `db status`."""
    waiting: list[tuple[str, click.Command]] = [("", cli)]
    while waiting:
        path, command = waiting.pop(0)
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                below = command.get_command(context, name)
                assert below is not None
                waiting.append((f"{path} {name}".strip(), below))
        elif any("--json" in parameter.opts for parameter in command.params):
            yield path


def test_every_command_that_prints_json_has_a_schema() -> None:
    wanted = {name.replace(" ", "-") for name in commands_with_json()} | {"error"}
    assert {path.stem for path in (REPOSITORY / "docs" / "schemas").glob("*.json")} == wanted


@pytest.fixture
def said(place: Place, validate_json: Validate) -> Callable[..., Any]:
    """Run a command with `--json`, check the form of what it says, and return it."""

    def run(name: str, *arguments: str | Path, code: int = 0, stdin: str = "") -> Any:
        done = place.run(*name.split(), *arguments, "--json", stdin=stdin)
        assert done.code == code, done.stderr + done.stdout
        value = done.json()
        validate_json("error" if code in {4, 5, 7, 9} else name.replace(" ", "-"), value)
        return value

    return run


def test_the_status_has_its_form_in_every_state(
    place: Place, said: Callable[..., Any], validate_json: Validate
) -> None:
    one = place.folder.add("one", "CREATE TABLE a (id INTEGER PRIMARY KEY, word TEXT)")
    assert said("db status", code=3)["state"] == "new"
    place.migrate()
    assert said("db status")["state"] == "current"
    place.folder.add("two", "DROP TABLE a")
    pending = said("db status", code=3)
    assert (pending["state"], pending["pending"][0]["hazards"] != []) == ("pending", True)
    place.write("CREATE TABLE by_hand (id INTEGER)")
    assert said("db status", code=3)["drift"] != []
    place.folder.write(one, "CREATE TABLE a (id INTEGER PRIMARY KEY, edited TEXT)")
    refused = said("db status", code=8)
    assert [problem["code"] for problem in refused["problems"]] == ["edited"]


def test_migrating_and_looking_back_have_their_forms(
    place: Place, said: Callable[..., Any]
) -> None:
    place.folder.add("one", "CREATE TABLE a (id INTEGER PRIMARY KEY, word TEXT)")
    said("db migrate", "--dry-run", code=3)
    said("db migrate")
    place.write("INSERT INTO a (word) VALUES ('x')")
    place.folder.add("two", "ALTER TABLE a ADD COLUMN more TEXT")
    said("db migrate")
    said("db history")
    said("db backup list")
    said("db backup verify")
    said("db backup create")
    said("db backup prune", "--yes")


def test_errors_have_their_form(place: Place, validate_json: Validate) -> None:
    place.folder.add("one", "CREATE TABEL a (id)")
    for arguments, code in ((("db", "migrate", "--json"), 5), (("db", "nonsense", "--json"), 2)):
        done = place.run(*arguments)
        assert done.code == code
        validate_json("error", done.json())
        assert done.json()["error"]["exit_code"] == code


def test_servers_and_profiles_have_their_forms(shipped: Place, validate_json: Validate) -> None:
    def said(name: str, *arguments: str) -> Any:
        words = name.split()
        options, _, command = " ".join(arguments).partition(" -- ")
        tail = ["--", *command.split()] if command else []
        done = shipped.run(*words, *options.split(), "--json", *tail)
        assert done.code == 0, done.stderr + done.stdout
        validate_json(name.replace(" ", "-"), done.json())
        return done.json()

    assert shipped.run("db", "migrate").code == 0
    said("server add", "web", "--url http://127.0.0.1:9/mcp --header X-Key=secret")
    said("server add", "clock --profile daily -- mcp-server-time --local-timezone UTC")
    assert [server["name"] for server in said("server list")] == ["web", "clock"]
    assert "secret" not in json.dumps(said("server show", "web"))
    said("server edit", "web --off")
    said("profile add", "work web clock")
    said("profile list")
    said("profile show", "work")
    said("profile edit", "work --disable web")
    said("profile remove", "work --yes")
    file = shipped.root / "servers.json"
    file.write_text(json.dumps({"mcpServers": {"time": {"command": "mcp-server-time"}}}))
    said("server import", str(file))
    said("server remove", "web --yes")
