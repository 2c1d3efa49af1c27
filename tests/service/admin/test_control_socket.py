"""Commands and daemon over a real unix socket."""

from __future__ import annotations

import socket
import stat
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from local_mcp_gateway.errors import Exit, GatewayError, UsageProblem
from local_mcp_gateway.log import ignore
from local_mcp_gateway.service.admin.control_socket import NoDaemon, answering, ask
from local_mcp_gateway.service.runtime_paths import socket_path


async def echo(verb: str, arguments: dict[str, Any]) -> object:
    if verb == "refuse":
        raise UsageProblem("There is no server 'x'.", hint="See `server list`.")
    if verb == "break":
        raise RuntimeError("a bug")
    return {"verb": verb, **arguments}


async def asked(database: Path, verb: str, **arguments: object) -> Any:
    return await anyio.to_thread.run_sync(partial(ask, database, verb, arguments, timeout_s=5))


async def test_a_question_is_answered(tmp_path: Path) -> None:
    database = tmp_path / "x.db"
    async with answering(database, echo, ignore):
        assert await asked(database, "server.show", name="é\n") == {
            "verb": "server.show",
            "name": "é\n",
        }


async def test_an_error_of_the_daemon_is_the_same_error_in_the_command(tmp_path: Path) -> None:
    database = tmp_path / "x.db"
    async with answering(database, echo, ignore):
        with pytest.raises(GatewayError) as caught:
            await asked(database, "refuse")
    assert caught.value.as_json() == {
        "code": "usage",
        "message": "There is no server 'x'.",
        "hint": "See `server list`.",
        "exit_code": int(Exit.USAGE),
    }


async def test_a_bug_in_one_command_does_not_end_the_daemon(tmp_path: Path) -> None:
    database = tmp_path / "x.db"
    async with answering(database, echo, ignore):
        with pytest.raises(GatewayError, match="RuntimeError: a bug"):
            await asked(database, "break")
        with socket.socket(socket.AF_UNIX) as garbage:
            garbage.connect(str(socket_path(database)))
            garbage.sendall(b"no json\n")
        assert await asked(database, "still there")


def test_without_a_daemon_the_command_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(NoDaemon):
        ask(tmp_path / "x.db", "reload", {}, timeout_s=5)


async def test_a_socket_left_by_a_killed_daemon_is_nobody_and_is_replaced(tmp_path: Path) -> None:
    database = tmp_path / "x.db"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(socket_path(database)))
    with pytest.raises(NoDaemon):
        await asked(database, "reload")
    async with answering(database, echo, ignore):
        assert await asked(database, "reload")
    assert not socket_path(database).exists()


async def test_only_the_owner_can_connect(tmp_path: Path) -> None:
    database = tmp_path / "x.db"
    async with answering(database, echo, ignore):
        assert stat.S_IMODE(socket_path(database).stat().st_mode) == 0o600


async def test_a_path_longer_than_a_socket_address_works(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 120)
    folder.mkdir()
    async with answering(folder / "x.db", echo, ignore):
        assert await asked(folder / "x.db", "hello") == {"verb": "hello"}


async def test_a_link_to_the_database_leads_to_the_same_daemon(tmp_path: Path) -> None:
    database = tmp_path / "x.db"
    database.touch()
    link = tmp_path / "link.db"
    link.symlink_to(database)
    async with answering(database, echo, ignore):
        assert await asked(link, "hello") == {"verb": "hello"}
