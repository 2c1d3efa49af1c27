"""What scripts rely on: the form of every `--json` output, checked against its schema in docs/schemas."""

from __future__ import annotations

import json
import sys
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
    """Yield the names of the commands that take `--json`, such as `db status`; of an alias the shortest."""
    waiting: list[tuple[str, click.Command]] = [("", cli)]
    known: set[int] = set()
    while waiting:
        path, command = waiting.pop(0)
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                below = command.get_command(context, name)
                assert below is not None
                waiting.append((f"{path} {name}".strip(), below))
        elif any("--json" in parameter.opts for parameter in command.params):
            if id(command) not in known:
                yield path
            known.add(id(command))


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
    assert [server["name"] for server in said("server list")] == ["clock", "web"]
    assert "secret" not in json.dumps(said("server show", "web"))
    said("server edit", "web --off")
    assert said("server approve", "web --yes") == {"approved": []}
    said("profile add", "work web clock")
    said("profile list")
    said("profile show", "work")
    said("profile edit", "work --disable web")
    said("profile tool", "work web echo --hide")
    said("profile remove", "work --yes")
    file = shipped.root / "servers.json"
    file.write_text(json.dumps({"mcpServers": {"time": {"command": "mcp-server-time"}}}))
    said("server import", str(file))
    said("server remove", "web --yes")


def test_looking_at_folder_and_database_has_its_forms(
    place: Place, said: Callable[..., Any]
) -> None:
    place.folder.add(
        "one",
        "CREATE TABLE a (id INTEGER PRIMARY KEY, word TEXT)",
        down="DROP TABLE a",
    )
    said("db check")
    place.migrate()
    place.folder.add("two", "ALTER TABLE a ADD COLUMN x TEXT", down="ALTER TABLE a DROP COLUMN x")
    said("db check", code=3)
    said("db rehearse")
    assert said("db migrate")["backup"]
    said("db diff")
    place.write("CREATE TABLE by_hand (id INTEGER)")
    assert said("db diff", code=3)["differences"] != []
    place.write("DROP TABLE by_hand")
    assert [step["tag"] for step in said("db down", "--steps", "1", "--yes")["reverted"]] == [
        "0001_two"
    ]


def test_generating_has_its_forms(place: Place, said: Callable[..., Any]) -> None:
    schema = place.root / "schema.sql"
    schema.write_text("CREATE TABLE a (id INTEGER PRIMARY KEY, word TEXT);\n")
    assert said("db generate", "--schema", schema, "--check", code=3)["missing"]
    assert said("db generate", "--schema", schema)["tag"]
    assert said("db generate", "--schema", schema)["tag"] is None
    said("db generate", "--empty", "--name", "more")
    said("db drop", "--yes")


def test_restoring_resetting_and_seeding_have_their_forms(
    shipped: Place, validate_json: Validate
) -> None:
    def said(name: str, *arguments: str) -> None:
        done = shipped.run(*name.split(), *arguments, "--json")
        assert done.code == 0, done.stderr + done.stdout
        validate_json(name.replace(" ", "-"), done.json())

    shipped.migrate()
    said("db backup create")
    said("db seed")
    said("db restore", "latest", "--yes")
    said("db reset", "--yes")


def test_a_start_has_its_form_afterwards(shipped: Place, validate_json: Validate) -> None:
    with shipped.serve() as gateway:
        gateway.wait_ready()
        reloaded = shipped.run("reload", "--json")
        validate_json("reload", reloaded.json())
        assert gateway.stop() == 0
    started = shipped.run("startup", "--json")
    validate_json("startup", started.json())
    assert started.json()["starts"][-1]["outcome"] == "ready"


def test_mending_a_history_has_its_forms(place: Place, said: Callable[..., Any]) -> None:
    one = place.folder.add("one", "CREATE TABLE a (id INTEGER PRIMARY KEY)")
    place.write("CREATE TABLE a (id INTEGER PRIMARY KEY)")
    assert said("db adopt", "--yes")["adopted"] == [one]
    place.folder.write(one, "CREATE TABLE a (id INTEGER PRIMARY KEY) -- edited")
    assert said("db repair", "--accept-edited", one, "--yes")["tag"] == one
    assert said("db renumber")["moved"] == []


def test_trying_a_server_has_its_forms(shipped: Place, validate_json: Validate) -> None:
    clock = ("--", sys.executable, "-m", "mcp_server_time", "--local-timezone", "UTC")
    assert shipped.run("server", "add", "clock", "--profile", "work", *clock).code == 0
    tested = shipped.run("server", "test", "clock", "--json")
    assert tested.code == 0, tested.stderr
    validate_json("server-test", tested.json())
    called = shipped.run("call", "get_current_time", "timezone=UTC", "--json")
    assert called.code == 0, called.stderr
    validate_json("call", called.json())


def test_looking_after_it_has_its_forms(shipped: Place, validate_json: Validate) -> None:
    file = shipped.root / "drizzle.config.ts"
    file.write_text(
        "export default { schema: './s.ts', out: './drizzle', dbCredentials: { url: 'a.db' } };"
    )
    for name, arguments in (
        ("config show", ()),
        ("config check", ()),
        ("config import", (str(file),)),
        ("doctor", ()),
    ):
        done = shipped.run(*name.split(), *arguments, "--json")
        assert done.code in {0, 3}, done.stderr
        validate_json(name.replace(" ", "-"), done.json())
    with shipped.serve() as gateway:
        gateway.wait_ready()
        gateway.stop()
    lines = shipped.run("logs", "--json", "--from", "file")
    assert lines.code == 0, lines.stderr
    events = [json.loads(line) for line in lines.stdout.splitlines()]
    assert "service.ready" in [event["event"] for event in events]
    for event in events:
        validate_json("logs", event)
