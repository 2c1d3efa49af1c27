"""Whatever the system or SQLite refuses to a command, it says so in a sentence, and never "Unexpected"."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from tests.harness import Place, new_place

COMMANDS = (
    "server list",
    "server add second -- /bin/cat",
    "server remove first --yes",
    "server import servers.json",
    "profile add work first",
    "secrets seal",
    "db status",
    "db check",
    "db diff",
    "db history",
    "db migrate",
    "db rehearse",
    "db down --steps 1 --yes",
    "db seed seed.sql",
    "db backup create",
    "db backup list",
    "db backup verify",
    "db backup prune --yes",
    "db restore latest --yes",
    "db reset --yes",
    "db generate --check",
    "db adopt --yes",
    "db renumber",
    "doctor",
    "config show",
    "startup",
    "logs",
    "logs --calls",
    "serve --port 0",
    "server show first",
    "profile list",
    "profile remove default --yes",
    "token create me",
    "token list",
    "secrets rotate",
    "db check --write-snapshots",
    "db pull --output out.sql",
    "db diagram",
    "db squash --yes",
    "db drop --yes",
    "db repair --reindex --yes",
    "db repair --mark-applied 0010_more --yes",
    "db backup prune --plain-secrets --yes",
    "tools",
    "audit",
    "config check",
)
STRACE = ("strace", "-f", "-qq", "-o", os.devnull)


def injected(call: str, error: str) -> tuple[str, ...]:
    """Let a system call fail for the database and what lies next to it."""
    where = ("-P", "{database}", "-P", "{database}-wal")
    return (*STRACE, *where, "-e", f"trace={call}", "-e", f"inject={call}:error={error}")


FAULTS: dict[str, tuple[str, ...]] = {
    "the disk is full for pages": injected("pwrite64", "ENOSPC"),
    "the disk refuses a page": injected("pwrite64", "EIO"),
    "the disk refuses to be read": injected("pread64", "EIO"),
    "the disk refuses a flush": injected("fdatasync", "EIO"),
    "the quota is used up": injected("pwrite64", "EDQUOT"),
    "no lock is to be had": injected("fcntl", "ENOLCK"),
    "the file may not be opened": injected("openat", "EACCES"),
    "a file may not grow": ("sh", "-c", 'ulimit -f 1; exec "$@"', "sh"),
    "no file can be opened": ("sh", "-c", 'ulimit -n 5; exec "$@"', "sh"),
    "another program writes": (),
    "the file cannot be written": (),
    "the file is damaged": (),
}
SAMPLE = 3
"""Of each fault this many commands run by default, others for each fault; all of them in `nightly`."""


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = new_place(tmp_path_factory.mktemp("filled"), shipped=True)
    place.migrate()
    assert place.run("server", "add", "first", "--", "/bin/cat").code == 0
    assert place.run("db", "backup", "create").code == 0
    place.folder.add("more", "CREATE TABLE more (id INTEGER PRIMARY KEY);", down="DROP TABLE more;")
    (place.root / "seed.sql").write_text("INSERT INTO profiles (id, name) VALUES ('x', 'seeded');")
    (place.root / "servers.json").write_text('{"mcpServers": {"third": {"command": "cat"}}}')
    return place


@contextmanager
def in_force(place: Place, fault: str) -> Iterator[tuple[str, ...]]:
    with ExitStack() as undone:
        if fault == "another program writes":
            other = undone.enter_context(
                closing(sqlite3.connect(place.database, isolation_level=None))
            )
            other.execute("BEGIN EXCLUSIVE")
        elif fault == "the file cannot be written":
            made = subprocess.run(
                ["mount", "--bind", place.database, place.database], check=False
            ).returncode
            if made or os.geteuid():
                pytest.skip("needs root and mounts")
            undone.callback(lambda: subprocess.run(["umount", place.database], check=True))
            subprocess.run(["mount", "-o", "remount,ro,bind", place.database], check=True)
        elif fault == "the file is damaged":
            with place.database.open("r+b") as file:
                file.seek(100)
                file.write(os.urandom(8000))
        yield tuple(word.replace("{database}", str(place.database)) for word in FAULTS[fault])


def expected(filled: Place, root: Path, fault: str, commands: tuple[str, ...]) -> None:
    for number, command in enumerate(commands):
        place = filled.copy(root / str(number))
        with in_force(place, fault) as prefix:
            timed = ("timeout", "-k", "5", "20")
            done = place.run(*command.split(), prefix=(*timed, *prefix))
        said = f"{fault}: {command}: {done}"
        assert "Unexpected" not in done.stdout + done.stderr, said
        assert "Traceback" not in done.stdout + done.stderr, said
        assert done.code not in (1, 137), said
        shutil.rmtree(place.root)


@pytest.mark.parametrize("number", range(len(FAULTS)))
def test_a_sample_of_commands_names_what_is_refused(
    filled: Place, tmp_path: Path, needs_strace: None, number: int
) -> None:
    fault = list(FAULTS)[number]
    expected(filled, tmp_path, fault, (COMMANDS * 2)[number :: len(COMMANDS) // SAMPLE][:SAMPLE])


@pytest.mark.nightly
@pytest.mark.parametrize("fault", FAULTS)
def test_every_command_names_what_is_refused(
    filled: Place, tmp_path: Path, needs_strace: None, fault: str
) -> None:
    expected(filled, tmp_path, fault, COMMANDS)
