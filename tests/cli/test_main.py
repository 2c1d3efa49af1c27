"""How the command line speaks: help without imports, errors in one place, the exit codes."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import click
import pytest

from local_mcp_gateway.cli import backup, db, main, server, service
from local_mcp_gateway.cli.lazy_group import LazyGroup, Target
from tests.harness import REPOSITORY, Place, clean_environment
from tests.needs import open_terminal

TABLES = {
    module.__name__.rpartition(".")[2]: module.COMMANDS
    for module in (main, db, backup, server, service)
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_command_of_the_table_can_be_imported(table: dict[str, Target]) -> None:
    group = LazyGroup(name="x", table=table)
    import click

    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, name
        assert command.help, f"{name} has no help"


def test_help_imports_no_command() -> None:
    code = (
        "import sys\n"
        "sys.argv = ['local-mcp-gateway', 'db', '--help']\n"
        "from local_mcp_gateway.cli.main import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'sqlite3', 'asyncio', 'structlog', 'msgspec', 'aiohttp', 'mcp', 'sqlalchemy'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"
    assert "status" in done.stdout


def test_status_imports_neither_asyncio_nor_structlog() -> None:
    code = (
        "import sys\n"
        "import local_mcp_gateway.cli.db, local_mcp_gateway.migrate.status\n"
        "import local_mcp_gateway.backup, local_mcp_gateway.database.lock\n"
        "heavy = {'asyncio', 'structlog', 'msgspec', 'anyio', 'sqlalchemy', 'aiosqlite'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_thread_in_native_code_does_not_change_the_exit_code() -> None:
    code = (
        "import io, os, sys, threading, pyrage\n"
        "class Endless(io.RawIOBase):\n"
        "    readable = lambda self: True\n"
        "    readinto = len\n"
        "key = pyrage.x25519.Identity.generate().to_public()\n"
        "source, nowhere = io.BufferedReader(Endless()), open(os.devnull, 'wb')\n"
        "seal = threading.Thread(target=pyrage.encrypt_io, args=(source, nowhere, [key]), daemon=True)\n"
        "from local_mcp_gateway.cli.main import main\n"
        "sys.argv = ['local-mcp-gateway', '--version']\n"
        "seal.start()\n"
        "main()\n"
    )
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=False)
        assert done.returncode == 0
        assert done.stdout.startswith(b"local-mcp-gateway")


def test_an_unknown_option_is_a_usage_error_without_a_traceback(place: Place) -> None:
    done = place.run("db", "status", "--jsn")
    assert done.code == 2
    assert "There is no option `--jsn`. Did you mean `--json`?" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_error_is_one_object_on_stdout_with_json(place: Place, tmp_path: Path) -> None:
    done = place.run("--database", tmp_path / "no" / "x.db", "db", "migrate", "--json", bare=True)
    assert done.code == 7
    error = done.json()["error"]
    assert error["code"] == "database_path"
    assert error["exit_code"] == 7
    assert error["hint"]


def test_an_unknown_setting_names_the_file_and_the_nearest_key(
    place: Place, tmp_path: Path
) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text("[gateway]\nprot = 3002\n")
    done = place.run("--config", config, "db", "status")
    assert done.code == 7
    assert f"{config}: there is no setting `gateway.prot`." in done.stderr
    assert "Did you mean `gateway.port`?" in done.stderr


def test_no_module_below_the_command_line_prints() -> None:
    printing = [
        f"{file}:{node.lineno}"
        for file in (REPOSITORY / "daemon").rglob("*.py")
        if "cli" not in file.parts
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]
    assert printing == []


def on_a_terminal(place: Place, *arguments: str, **environment: str) -> tuple[int, str]:
    """Run a command whose outputs are a terminal; return its exit code and what stands there."""
    leader, follower = open_terminal()
    with subprocess.Popen(
        [*place.command, *place.options, *arguments],
        env=clean_environment(place.home, **environment),
        stdin=subprocess.DEVNULL,
        stdout=follower,
        stderr=follower,
    ) as process:
        os.close(follower)
        told = b""
        with os.fdopen(leader, "rb", buffering=0) as terminal, suppress(OSError):  # EIO is its end
            while read := terminal.read(65536):
                told += read
    return process.returncode, told.decode()


@pytest.mark.parametrize("command", [["db", "status"], ["doctor"], ["db", "migrate"]])
def test_no_color_takes_the_colours_off_a_terminal(shipped: Place, command: list[str]) -> None:
    shipped.migrate()
    shipped.folder.write("0000_initial", "CREATE TABLE other (id INTEGER);")
    assert "\x1b[3" in on_a_terminal(shipped, *command, NO_COLOR="")[1]
    assert "\x1b[" not in on_a_terminal(shipped, *command, NO_COLOR="1")[1]


def test_on_a_terminal_an_error_fits_120_columns_at_most(shipped: Place) -> None:
    """The message is one that is longer, with a command in its hint."""
    shipped.migrate()
    shipped.folder.write("0000_initial", "CREATE TABLE other (id INTEGER);")
    code, told = on_a_terminal(shipped, "db", "migrate", COLUMNS="160")
    told = click.unstyle(told)
    assert code == 8
    assert len(told.splitlines()) > 2
    assert max(map(len, told.splitlines())) <= 120


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_command_works_without_a_standard_stream(place: Place, closed: str) -> None:
    place.folder.add("a", "CREATE TABLE a (x)")
    done = place.run("db", "migrate", prefix=("sh", "-c", f'exec "$@" {closed}', "sh"))
    assert done.code == 0, done.stderr
    assert place.query("SELECT count(*) FROM a") == [(0,)]


def test_without_a_stdin_nothing_is_confirmed(place: Place) -> None:
    place.folder.add("a", "CREATE TABLE a (x)")
    place.migrate()
    done = place.run("db", "reset", prefix=("sh", "-c", 'exec "$@" <&-', "sh"))
    assert done.code == 2
    assert "it was not confirmed" in done.stderr


def test_a_database_whose_name_is_no_utf_8_is_served_like_any_other(place: Place) -> None:
    place.folder.add("a", "CREATE TABLE a (x)")
    name = os.fsdecode(b"caf\xe9.db")
    done = subprocess.run(
        [*place.command, "--database", name, "--migrations", place.folder.path, "db", "migrate"],
        cwd=place.root,
        env=clean_environment(place.home),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"caf\xe9.db" in done.stdout
    assert (place.root / name).exists()


def test_links_in_a_circle_and_a_folder_that_is_gone_are_named(place: Place) -> None:
    loop = place.root / "loop.db"
    loop.symlink_to(loop)
    done = place.run("--database", loop, "db", "status", bare=True)
    assert done.code == 7
    assert "loop of symbolic links" in done.stderr
    gone = ("sh", "-c", 'mkdir gone && cd gone && rmdir ../gone && exec "$@"', "sh")
    done = place.run("--database", "x.db", "db", "status", bare=True, prefix=gone)
    assert done.code == 7
    assert "x.db is relative to a folder that no longer exists" in done.stderr
