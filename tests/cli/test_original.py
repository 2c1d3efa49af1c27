"""From the refusal of the original's database to a gateway with its servers, and back."""

from __future__ import annotations

import hashlib
import os
import pty
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any, BinaryIO

import pytest

from tests.harness import DEADLINE_S, Place, clean_environment
from tests.originals import SECRETS, STATES, make_original

Validate = Callable[[str, Any], None]
NIGHTLY = pytest.mark.nightly
"""What is only one more of the same: the rows of each state are checked in tests/store."""
ADOPT = ("db", "adopt", "--from", "local-mcp-gateway")


def digest(place: Place) -> str:
    return hashlib.sha256(place.database.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "state", [state if state in "AE" else pytest.param(state, marks=NIGHTLY) for state in STATES]
)
def test_each_state_leads_from_a_refusal_to_its_servers(
    shipped: Place, validate_json: Validate, state: str
) -> None:
    make_original(state, shipped.database)
    before = digest(shipped)
    with shipped.serve() as refused:
        assert refused.wait() == 8
        said = refused.wait_for("guard.refused")
    assert "belongs to the original local-mcp-gateway" in said["message"]
    assert "db adopt --from local-mcp-gateway" in said["hint"]
    assert (digest(shipped), shipped.backups) == (before, [])

    shipped.database.chmod(0o644)
    adopted = shipped.run(*ADOPT, "--yes", "--json")
    assert adopted.code == 0, adopted.stderr
    assert shipped.database.stat().st_mode & 0o777 == 0o600
    validate_json("db-adopt", adopted.json())
    assert not any(secret.encode() in shipped.database.read_bytes() for secret in SECRETS)
    assert len(shipped.backups) == 1
    said_hello = shipped.run(
        "call", "say" if state != "A" else "echo", "text=hello", "--profile", "work-desk"
    )
    assert (said_hello.code, said_hello.stdout.strip()) == (0, '{"text": "hello"}'), (
        said_hello.stderr
    )


def test_every_command_says_whose_database_it_is(shipped: Place) -> None:
    make_original("E", shipped.database)
    before = digest(shipped)
    for command in ("db status", "db check", "db diff", "db adopt --yes", "server list", "doctor"):
        done = shipped.run(*command.split())
        assert done.code == (3 if command == "doctor" else 8), command
        said = done.stdout + done.stderr
        assert "This database belongs to the original local-mcp-gateway (0.5.0 to 0.8.0)." in said
        assert "`db adopt --from local-mcp-gateway`" in said
        assert (digest(shipped), shipped.backups) == (before, [])


def test_serve_on_a_terminal_offers_to_take_it_over_and_then_serves(shipped: Place) -> None:
    make_original("E", shipped.database)
    here, there = pty.openpty()
    with os.fdopen(here, "r+b", buffering=0) as screen:
        serving = subprocess.Popen(
            [*shipped.command, *shipped.options, "serve", "--port", "0"],
            stdin=there, stdout=there, stderr=there,
            env=clean_environment(shipped.home), cwd=shipped.root,
        )  # fmt: skip
        os.close(there)
        try:
            shown = until(screen, "[y/N]")
            assert "belongs to the original local-mcp-gateway" in shown
            assert shipped.backups == []
            screen.write(b"y\n")
            shown = until(screen, "service.ready")
            assert "The profile 'work desk' is called work-desk here." in shown
        finally:
            serving.send_signal(signal.SIGTERM)
            with suppress(OSError):  # the end of a terminal
                while screen.read(65536):
                    pass
            serving.wait(DEADLINE_S)
    assert len(shipped.backups) == 1


def until(screen: BinaryIO, text: str) -> str:
    """Return what a terminal shows until this is in it."""
    shown = ""
    while text not in shown:
        shown += screen.read(65536).decode(errors="replace").replace("\r\n", "\n")
    return shown


def test_a_no_changes_nothing_and_leaves_no_backup(shipped: Place) -> None:
    make_original("B", shipped.database)
    before = digest(shipped)
    done = shipped.run(*ADOPT, stdin="no\n")
    assert done.code == 2
    assert "The server 'Notes' is called Notes-2 here." in done.stderr
    assert (digest(shipped), shipped.backups) == (before, [])


def test_the_old_secrets_are_told_and_go_with_their_backup(
    shipped: Place, validate_json: Validate
) -> None:
    make_original("E", shipped.database)
    old = shipped.run("db", "backup", "create", "--json").json()["name"]  # nobody has marked it
    done = shipped.run(*ADOPT, "--yes", "--json").json()["taken_over"]
    ours = shipped.run("db", "backup", "create", "--json").json()["name"]
    listed = shipped.run("db", "backup", "list", "--json").json()
    validate_json("db-backup-list", listed)
    marked = {item["name"]: item["plain_secrets"] for item in listed["backups"]}
    assert marked == {old: False, done["backup"]: True, ours: False}
    assert "in plain" in shipped.run("db", "backup", "list").stderr

    assert shipped.run("db", "restore", done["backup"], "--yes").code == 0
    assert shipped.run("db", "status").code == 8
    assert shipped.run(*ADOPT, "--yes").code == 0

    assert shipped.run("db", "restore", done["backup"], "--yes").code == 0
    assert shipped.run("db", "restore", ours, "--yes").code == 0  # the old one stays next to it
    assert len(list(shipped.database.parent.glob("*.replaced-*.db"))) == 3
    prune = ("db", "backup", "prune", "--plain-secrets")
    would = shipped.run(*prune, "--dry-run").stdout.splitlines()
    assert [".replaced-" in line for line in would if "would remove" in line] == [False] * 3 + [
        True
    ]
    assert shipped.run(*prune, "--yes").code == 0
    assert [file.stem for file in shipped.backups] == [ours]
    beside = [file for file in shipped.database.parent.rglob("*") if file.is_file()]
    assert [file for file in beside if SECRETS[2].encode() in file.read_bytes()] == []


def test_what_is_not_the_originals_is_not_taken_over(shipped: Place) -> None:
    assert shipped.run(*ADOPT, "--yes").code == 2
    shipped.migrate()
    done = shipped.run(*ADOPT, "--yes")
    assert done.code == 2
    assert "not a database of the original" in done.stderr


def test_a_damaged_one_is_left_as_it_is(shipped: Place) -> None:
    make_original("E", shipped.database)
    content = bytearray(shipped.database.read_bytes())
    content[8192:16384] = b"\xff" * 8192
    shipped.database.write_bytes(content)
    done = shipped.run(*ADOPT, "--yes")
    assert done.code == 6, done.stderr
    assert "Traceback" not in done.stderr
    assert shipped.database.read_bytes() == bytes(content)


@pytest.mark.parametrize("state", ["B", pytest.param("E", marks=NIGHTLY)])
def test_one_that_its_own_program_is_using_waits(shipped: Place, state: str) -> None:
    make_original(state, shipped.database)
    with closing(sqlite3.connect(shipped.database, isolation_level=None)) as theirs:
        theirs.execute("BEGIN IMMEDIATE")
        theirs.execute("UPDATE profiles SET description = 'just now'")
        done = shipped.run(*ADOPT, "--yes")
        assert done.code == 4, done.stderr
        theirs.execute("COMMIT")
    assert shipped.run("db", "status").code == 8
    assert shipped.run(*ADOPT, "--yes").code == 0
    assert ("just now",) in shipped.query("SELECT description FROM profiles")


KILLS = [("rename", 3), ("fsync", 12)]
EVERY = [(call, number) for call in ("rename", "unlink", "fsync") for number in range(1, 30)]


@pytest.mark.parametrize(
    ("call", "number"), KILLS + [pytest.param(*kill, marks=NIGHTLY) for kill in EVERY]
)
def test_killed_on_the_way_it_is_the_old_one_or_the_new_one(
    shipped: Place, needs_strace: None, call: str, number: int
) -> None:
    make_original("B", shipped.database)
    inject = f"inject={call}:signal=KILL:when={number}"
    strace = ("strace", "-qq", "-f", "-e", f"trace={call}", "-e", inject, "-o", "/dev/null")
    shipped.run(*ADOPT, "--yes", prefix=strace)
    state = shipped.run("db", "status", "--json").json()["state"]
    assert state in ("refused", "current")
    if state == "refused":
        assert shipped.run(*ADOPT, "--yes").code == 0
    assert [row[0] for row in shipped.query("SELECT id FROM profiles ORDER BY id")] == [
        "p1",
        "p2",
        "p3",
    ]
    shipped.migrate()  # as any start, it clears away what the kill left
    left = [file.name for file in shipped.database.parent.rglob("*") if ".tmp" in file.name]
    assert left == []
