"""What a person can get wrong, each with a real process: one clear line, one hint, one exit code."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.harness import Finished, Place
from tests.needs import held_to_modes

pytestmark = pytest.mark.e2e


def refused(done: Finished, code: int, *words: str) -> None:
    assert done.code == code, done.stderr
    assert "Traceback" not in done.stderr
    said = done.stderr or done.stdout  # what `db status` finds wrong is its result
    for word in words:
        assert word in said
    assert "→ " in said or '"hint": "' in said


def serve(place: Place, *arguments: str, **options: object) -> Finished:
    """Run `serve` on a console, to the end that it should come to by itself."""
    return place.run("--log-format", "console", "serve", "--port", "0", *arguments, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("command", [("db", "migrate"), ("serve", "--port", "0")])
def test_a_database_in_a_folder_that_does_not_exist_is_said_with_its_path(
    place: Place, command: tuple[str, ...]
) -> None:
    missing = place.root / "nowhere" / "gateway.db"
    done = place.run("--database", missing, *command)
    refused(done, 7, str(missing.parent))
    assert not missing.parent.exists()


@pytest.mark.parametrize("command", [("db", "migrate"), ("serve", "--port", "0")])
def test_a_folder_that_cannot_be_written_is_said_with_its_path(
    place: Place, command: tuple[str, ...]
) -> None:
    place.folder.add("one", "CREATE TABLE a (id INTEGER PRIMARY KEY)")
    place.database.parent.chmod(0o500)
    done = place.run(*command, prefix=held_to_modes())
    refused(done, 7, str(place.database.parent))
    assert list(place.database.parent.iterdir()) == []


@pytest.mark.parametrize("command", [("db", "migrate"), ("db", "status"), ("serve", "--port", "0")])
def test_a_file_that_is_not_sqlite_is_left_alone(place: Place, command: tuple[str, ...]) -> None:
    letter = b"Dear database, I am a letter.\n" * 200
    place.database.write_bytes(letter)
    done = place.run(*command)
    refused(done, 6, str(place.database))
    assert place.database.read_bytes() == letter


def test_a_second_start_is_told_who_holds_the_lock_and_the_first_is_unharmed(
    shipped: Place,
) -> None:
    with shipped.serve() as first:
        first.wait_ready()
        second = serve(shipped)
        refused(second, 4, str(first.process.pid))
        assert len([line for line in second.stderr.splitlines() if "lock" in line.lower()]) >= 1
        assert first.is_live()
        assert first.stop() == 0
    assert "guard.refused" not in first.names()


def test_a_migration_whose_third_statement_is_wrong_is_named_with_its_line(shipped: Place) -> None:
    shipped.folder.add("one", "CREATE TABLE a (id INTEGER PRIMARY KEY, word TEXT)")
    shipped.migrate()
    shipped.write("INSERT INTO a (word) VALUES ('kept')")
    before = shipped.content()
    sql = "ALTER TABLE a ADD COLUMN x TEXT;\n\nUPDATE a SET x = 'changed';\nCREAT TABLE b (id);\n"
    tag = shipped.folder.add("two", sql)
    for done in (shipped.run("db", "migrate"), serve(shipped)):
        refused(done, 5, tag, "line 4", "statement 3")
        assert shipped.content() == before
    assert shipped.run("db", "status").code == 3


@pytest.mark.parametrize("command", [("db", "status"), ("serve",)])
def test_an_unknown_key_in_the_configuration_names_the_nearest_one(
    place: Place, command: tuple[str, ...]
) -> None:
    file = place.root / "gateway.toml"
    file.write_text("[gateway]\nprot = 3002\n")
    done = place.run("--config", file, *command)
    refused(done, 7, str(file), "gateway.prot", "gateway.port")
    assert not place.database.exists()


def test_a_port_in_use_is_said_with_its_number(shipped: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = shipped.run("serve", "--port", port)
    refused(done, 7, port)


def test_an_upstream_command_that_does_not_exist_stops_nothing_else(shipped: Place) -> None:
    assert shipped.run("db", "migrate").code == 0
    added = shipped.run(
        "server", "add", "ghost", "--profile", "default", "--", "no-such-command-anywhere"
    )
    assert added.code == 0, added.stderr
    with shipped.serve() as gateway:
        gateway.wait_ready()
        assert gateway.is_live()
        tested = shipped.run("server", "test", "ghost")
        refused(tested, 1, "no-such-command-anywhere")
        assert gateway.is_live()
        assert gateway.stop() == 0


def test_a_migrations_folder_that_does_not_exist_is_said_with_its_path(
    place: Place, tmp_path: Path
) -> None:
    missing = tmp_path / "no-migrations"
    done = place.run("--migrations", missing, "db", "migrate")
    refused(done, 7, str(missing))
    assert not place.database.exists()


def test_serving_a_database_that_is_not_the_gateways_is_refused_in_a_sentence(place: Place) -> None:
    place.folder.add("one", "CREATE TABLE a (id INTEGER PRIMARY KEY)")
    refused(serve(place), 7, "mcp_servers", str(place.folder.path))
    assert place.run("db", "status").code == 3  # nothing was applied
