"""Groups of commands: what is meant by an unknown name, and the global options behind a command."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from local_mcp_gateway.cli import main
from local_mcp_gateway.cli.context import global_options
from tests.harness import Place


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("db stauts", "`db status`"),
        ("status", "`db status`, `replica status` or `service status`"),
        ("start", "`serve` or `service start`"),
        ("service strat", "`service start`"),
        ("migrate", "`db migrate`"),
        ("ls", "`server list`, `profile list` or `token list`"),
        ("server lst", "`server list`"),
        ("servr", "`server`"),
    ],
)
def test_an_unknown_command_names_those_of_any_group_that_may_be_meant(
    place: Place, typed: str, meant: str
) -> None:
    done = place.run(*typed.split())
    assert done.code == 2
    first = done.stderr.splitlines()[0]
    assert first == f"There is no command `{typed.rsplit(maxsplit=1)[-1]}`. Did you mean {meant}?"


def test_what_is_like_no_command_is_not_guessed_at(place: Place) -> None:
    done = place.run("frobnicate")
    assert done.stderr.splitlines()[0] == "There is no command `frobnicate`."


@pytest.mark.parametrize("place_of_options", ["before", "between", "after"])
def test_the_global_options_stand_anywhere(place: Place, place_of_options: str) -> None:
    place.folder.add("a", "CREATE TABLE a (x)")
    words = {
        "before": [*place.options, "db", "migrate"],
        "between": ["db", *place.options, "migrate"],
        "after": ["db", "migrate", *place.options],
    }[place_of_options]
    done = place.run(*words, bare=True)
    assert done.code == 0, done.stderr
    assert place.query("SELECT count(*) FROM a") == [(0,)]


def test_every_command_takes_the_global_options() -> None:
    wanted = {option for each in global_options() for option in each.opts}

    def without(context: click.Context) -> Iterator[str]:
        if not isinstance(context.command, click.Group):
            return
        for name in context.command.list_commands(context):
            command = context.command.get_command(context, name)
            assert command is not None
            below = click.Context(command, parent=context, info_name=name)
            if wanted - {option for parameter in command.params for option in parameter.opts}:
                yield below.command_path
            yield from without(below)

    assert list(without(click.Context(main.cli, info_name="x"))) == []


def test_of_an_option_given_twice_the_one_behind_the_command_wins(place: Place) -> None:
    other = place.root / "other.db"
    done = place.run("db", "status", "--json", "--database", other)
    assert done.json()["database"] == str(other)


def test_what_stands_behind_two_dashes_belongs_to_the_server(shipped: Place) -> None:
    command = ("echo", "--database", "theirs.db")
    shipped.run("server", "add", "a", "--", *command)
    (server,) = shipped.run("server", "list", "--json").json()
    assert (server["command"], *server["args"]) == command


def test_a_command_with_an_option_of_the_same_name_keeps_its_own() -> None:
    root = click.Context(main.cli, info_name="x")
    group = main.cli.get_command(root, "db")
    assert isinstance(group, click.Group)
    studio = group.get_command(click.Context(group, parent=root), "studio")
    assert studio is not None
    named = [parameter for parameter in studio.params if "--database" in parameter.opts]
    assert [option.expose_value for option in named] == [True]
