"""The folders that the environment gives are used, and a command that has none of them finds everything."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_mcp_gateway.service.runtime_paths import (
    log_path,
    prepare_log_file,
    prepare_socket_path,
    remove_socket,
    socket_path,
)
from tests.harness import GatewayProcess, Place


@pytest.fixture
def given(shipped: Place) -> dict[str, str]:
    folders = {"RUNTIME_DIRECTORY": shipped.root / "run", "LOGS_DIRECTORY": shipped.root / "logs"}
    for folder in folders.values():
        folder.mkdir(mode=0o700)
    return {name: str(folder) for name, folder in folders.items()}


@pytest.fixture
def serving(shipped: Place, given: dict[str, str]) -> Iterator[GatewayProcess]:
    with shipped.serve(env=given) as gateway:
        yield gateway.wait_ready()


def test_a_command_without_the_variables_reaches_the_gateway(
    shipped: Place, serving: GatewayProcess
) -> None:
    placed = shipped.root / "run" / "gateway.db.sock"
    assert stat.S_ISSOCK(placed.lstat().st_mode)
    assert serving.wait_for("control.listening")["path"] == str(placed)
    assert shipped.run("profile", "add", "made").code == 0
    assert shipped.run("reload").code == 0
    serving.wait_for("service.reloaded")
    assert serving.stop() == 0
    assert not placed.exists()
    assert not socket_path(shipped.database).is_symlink()


def test_the_log_is_in_its_folder_and_logs_shows_it_also_after_the_stop(
    shipped: Place, serving: GatewayProcess
) -> None:
    serving.stop()
    assert (shipped.root / "logs" / "gateway.db.log.jsonl").stat().st_size > 0
    lines = shipped.run("logs", "--from", "file", "--json").stdout.splitlines()
    names = [json.loads(line)["event"] for line in lines]
    assert {"service.starting", "service.ready", "service.stopped"} <= set(names)


def test_what_was_logged_beside_the_database_before_goes_along(
    shipped: Place, given: dict[str, str]
) -> None:
    with shipped.serve() as gateway:
        gateway.wait_ready().stop()
    with shipped.serve(env=given) as gateway:
        gateway.wait_ready().stop()
    with shipped.serve() as gateway:
        gateway.wait_ready().stop()
    lines = shipped.run("logs", "--from", "file", "-n", "1000", "--json").stdout.splitlines()
    assert [json.loads(line)["event"] for line in lines].count("service.ready") == 3


def test_a_killed_gateways_socket_and_its_folder_are_gone_and_the_next_one_answers(
    shipped: Place, given: dict[str, str], serving: GatewayProcess
) -> None:
    serving.kill()
    (shipped.root / "run" / "gateway.db.sock").unlink()
    (shipped.root / "run").rmdir()  # as systemd does with a RuntimeDirectory
    assert shipped.run("server", "list").code == 0
    with shipped.serve() as gateway:
        gateway.wait_ready()
        assert shipped.run("reload").code == 0
        gateway.wait_for("service.reloaded")


def test_a_folder_that_is_not_there_or_not_ours_is_not_used(shipped: Place) -> None:
    wrong = {"RUNTIME_DIRECTORY": "/nowhere/at/all", "LOGS_DIRECTORY": "relative"}
    assert prepare_socket_path(shipped.database, wrong) == socket_path(shipped.database)
    assert prepare_log_file(shipped.database, wrong) == log_path(shipped.database)


def test_without_its_folder_the_log_comes_back_to_the_database(
    shipped: Place, given: dict[str, str]
) -> None:
    placed = prepare_log_file(shipped.database, given)
    assert (placed.parent, log_path(shipped.database).is_symlink()) == (
        Path(given["LOGS_DIRECTORY"]),
        True,
    )
    assert prepare_log_file(shipped.database, {}) == placed
    placed.parent.rmdir()
    assert prepare_log_file(shipped.database, {}) == log_path(shipped.database)
    assert not log_path(shipped.database).is_symlink()


def test_a_stop_takes_the_link_away_with_the_socket(shipped: Place, given: dict[str, str]) -> None:
    placed = prepare_socket_path(shipped.database, given)
    placed.touch()
    assert socket_path(shipped.database).resolve() == placed
    remove_socket(shipped.database, placed)
    assert not placed.exists()
    assert not socket_path(shipped.database).is_symlink()


@pytest.mark.parametrize("variable", ["RUNTIME_DIRECTORY", "LOGS_DIRECTORY"])
def test_the_first_of_several_folders_is_meant(
    shipped: Place, given: dict[str, str], variable: str
) -> None:
    several = {variable: f"{given[variable]}:/somewhere/else"}
    place = prepare_socket_path if variable.startswith("RUNTIME") else prepare_log_file
    assert place(shipped.database, several).parent == Path(given[variable])
