"""A path is checked before it is opened: nothing waits for a pipe, nothing follows a planted link."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from local_mcp_gateway.regular_file import NotAFile, open_file, read_given
from tests.harness import Place
from tests.needs import STRANGER, give_away

KINDS = {
    "a named pipe": os.mkfifo,
    "a folder": os.mkdir,
    "a device": lambda path: path.symlink_to("/dev/zero"),
}


@contextmanager
def a_socket(path: Path) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.fspath(path))
        yield


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_named_and_not_opened(tmp_path: Path, kind: str) -> None:
    KINDS[kind](tmp_path / "x")
    with pytest.raises(NotAFile) as raised:
        open_file(tmp_path / "x")
    assert raised.value.strerror == f"it is {kind}"


def test_a_socket_is_named(tmp_path: Path) -> None:
    with a_socket(tmp_path / "x"), pytest.raises(NotAFile, match="it is a socket"):
        open_file(tmp_path / "x")


def test_a_link_is_followed_only_where_the_path_was_given(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("content")
    (tmp_path / "link").symlink_to("x")
    assert read_given(tmp_path / "link") == b"content"
    with pytest.raises(NotAFile, match="it is a symbolic link"):
        open_file(tmp_path / "link", follow=False)


def test_a_pipe_of_the_shell_is_read() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"content")
    os.close(writer)
    assert read_given(Path(f"/dev/fd/{reader}")) == b"content"
    os.close(reader)


DOORS: dict[str, tuple[str, tuple[str, ...], int]] = {
    "database: serve": ("x.db", ("--database", "{}", "serve", "--port", "0"), 7),
    "database: migrate": ("x.db", ("--database", "{}", "db", "migrate"), 7),
    "database: check": ("x.db", ("--database", "{}", "db", "check"), 7),
    "database: status": ("x.db", ("--database", "{}", "db", "status"), 7),
    "database: backup": ("x.db", ("--database", "{}", "db", "backup", "create"), 7),
    "database: diff": ("x.db", ("--database", "{}", "db", "diff"), 7),
    "database: server list": ("x.db", ("--database", "{}", "server", "list"), 7),
    "database: doctor": ("x.db", ("--database", "{}", "doctor"), 3),
    "its journal": ("data/gateway.db-journal", ("db", "migrate"), 7),
    "its log": ("data/gateway.db-wal", ("db", "migrate"), 7),
    "the lock": ("data/gateway.db.lock", ("db", "migrate"), 7),
    "the token": ("data/gateway.db.token", ("serve", "--port", "0"), 7),
    "the key": ("home/.config/local-mcp-gateway.key", ("secrets", "seal"), 7),
    "the configuration": ("x.toml", ("--config", "{}", "db", "status"), 7),
    "an import": ("x.json", ("server", "import", "{}"), 2),
    "drizzle's configuration": ("x.ts", ("config", "import", "{}"), 7),
    "a seed": ("x.sql", ("db", "seed", "{}"), 2),
    "a schema": ("s/x.sql", ("db", "diff", "--to", "s"), 2),
    "a migration": ("m/0000_x.sql", ("--migrations", "m", "db", "adopt", "--format", "plain"), 2),
    "the journal of the folder": ("migrations/meta/_journal.json", ("db", "migrate"), 8),
}
"""Where a path is opened: the path, the command that opens it, and how it ends."""


@pytest.mark.parametrize("door", DOORS)
def test_no_command_waits_for_a_pipe(shipped: Place, door: str) -> None:
    name, words, code = DOORS[door]
    path = shipped.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)
    found = shipped.run(*(word.format(path) for word in words))
    assert (found.code, "named pipe" in found.stderr + found.stdout) == (code, True), found


@pytest.mark.root
@pytest.mark.parametrize("suffix", [".lock", ".log.jsonl", ".starts.jsonl"])
def test_a_planted_link_is_not_written_through(shipped: Place, suffix: str) -> None:
    victim = shipped.root / "victim"
    victim.write_text("mine")
    planted = Path(f"{shipped.database}{suffix}")
    planted.symlink_to(victim)
    give_away(planted, group=STRANGER)
    with shipped.serve() as gateway:
        if suffix == ".lock":
            assert gateway.wait() == 7
        else:
            gateway.wait_ready()
            assert gateway.stop() == 0
    assert victim.read_text() == "mine"
