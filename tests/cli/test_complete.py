"""What a shell offers when a person presses Tab: the names that are there."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.harness import Place

COMMAND = str(Path(sys.executable).with_name("local-mcp-gateway"))


def offered(place: Place, *words: str, typed: str = "") -> list[str]:
    """Return what bash offers for the next word of a command line."""
    line = ["local-mcp-gateway", *place.options, *words, typed]
    done = replace(place, command=(COMMAND,)).run(
        bare=True,
        env={
            "_LOCAL_MCP_GATEWAY_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(line),
            "COMP_CWORD": str(len(line) - 1),
        },
    )
    assert done.stderr == ""
    return [item.partition(",")[2] for item in done.stdout.splitlines() if item]


@pytest.mark.usefixtures("either")
def test_servers_and_profiles_are_completed(either: Place) -> None:
    for name in ("clock", "calendar", "files"):
        either.run("server", "add", name, "--profile", "work", "--", "true")
    assert offered(either, "server", "show", typed="c") == ["calendar", "clock"]
    assert offered(either, "profile", "edit", "work", "--remove", typed="f") == ["files"]
    assert offered(either, "profile", "show") == ["work"]
    assert offered(either, "token", "create", "ci", "--profile") == ["work"]


def test_migrations_and_backups_are_completed(place: Place) -> None:
    first = place.folder.add("a", "CREATE TABLE a (x)")
    second = place.folder.add("b", "CREATE TABLE b (x)")
    place.migrate()
    assert offered(place, "db", "migrate", "--to") == [first, second]
    made = place.run("db", "backup", "create")
    assert made.code == 0
    (backup,) = place.backups
    assert offered(place, "db", "restore") == [backup.stem]


def test_without_a_database_nothing_is_offered_and_nothing_is_said(place: Place) -> None:
    assert offered(place, "server", "show") == []
    assert offered(place, "call") == []
    assert not place.database.exists()


def test_a_command_is_offered_with_its_whole_sentence(place: Place) -> None:
    program = replace(place, command=(COMMAND,))
    env = {
        "_LOCAL_MCP_GATEWAY_COMPLETE": "fish_complete",
        "COMP_WORDS": "local-mcp-gateway ser",
        "COMP_CWORD": "ser",
    }
    told = program.run(bare=True, env=env).stdout.splitlines()
    assert "plain,serve\tGuard the database, then serve every profile" in told
    script = program.run("completion", "fish", bare=True).stdout
    assert 'string split -m 1 ","' in script  # else the sentence ends at its comma
