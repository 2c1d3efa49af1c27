"""What other programs wrote into the database file is refused by name, whichever command reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness import Finished, Place

COMMANDS = (
    ("db", "status"),
    ("db", "migrate"),
    ("db", "migrate", "--dry-run"),
    ("db", "check"),
    ("db", "down", "--yes"),
    ("db", "rehearse"),
    ("server", "add", "x", "--", "/bin/cat"),
)
every_command = pytest.mark.parametrize("command", COMMANDS, ids=" ".join)


def without_hash(place: Place, value: str) -> None:
    place.write("DROP TABLE __drizzle_migrations")
    place.write("CREATE TABLE __drizzle_migrations (id, hash, created_at)")
    place.write(f"INSERT INTO __drizzle_migrations VALUES (NULL, {value}, NULL)")


def of_a_newer_sqlite(database: Path) -> None:
    with database.open("r+b") as file:
        file.seek(47)
        file.write(b"\xfa")


def told(done: Finished, words: str) -> None:
    everything = done.stdout + done.stderr
    assert words in everything
    assert "Unexpected" not in everything
    assert "Traceback" not in everything


@pytest.mark.parametrize("value", ["NULL", "x'ff00'", "7"])
@every_command
def test_a_ledger_row_without_a_hash_is_refused(
    kept: Place, command: tuple[str, ...], value: str
) -> None:
    without_hash(kept, value)
    done = kept.run(*command)
    assert done.code == 8, done
    told(done, "__drizzle_migrations has a row without a hash")
    told(done, "DELETE FROM __drizzle_migrations WHERE typeof(hash) <> 'text'")


@every_command
def test_a_file_format_that_sqlite_does_not_know_is_refused(
    kept: Place, command: tuple[str, ...]
) -> None:
    of_a_newer_sqlite(kept.database)
    done = kept.run(*command)
    assert done.code == 6, done
    told(done, "has a file format that SQLite")
    told(done, "newer SQLite")


def test_a_ledger_row_without_a_hash_prevents_neither_backup_nor_reset(kept: Place) -> None:
    without_hash(kept, "NULL")
    assert kept.run("db", "backup", "create").code == 0
    assert kept.run("db", "reset", "--yes").code == 0
    assert kept.run("db", "migrate").code == 0


def test_a_backup_replaces_a_file_of_unknown_format(kept: Place) -> None:
    of_a_newer_sqlite(kept.database)
    assert kept.run("db", "restore", "latest", "--yes").code == 0
    assert kept.query("SELECT id, text FROM notes") == [(1, "kept")]


ADMIN = (
    ("server", "list"),
    ("server", "show", "x"),
    ("server", "add", "x", "--", "/bin/cat"),
    ("server", "edit", "x", "--off"),
    ("server", "remove", "x", "--yes"),
    ("server", "approve", "x"),
    ("server", "test", "x"),
    ("profile", "list"),
    ("profile", "show", "x"),
    ("profile", "add", "x"),
    ("profile", "edit", "x", "--description", "y"),
    ("profile", "remove", "x", "--yes"),
    ("secrets", "seal"),
    ("secrets", "rotate"),
    ("call", "x__y"),
    ("logs", "--calls"),
    ("doctor",),
)


@pytest.mark.parametrize("command", ADMIN, ids=" ".join)
def test_a_database_that_is_not_a_gateways_is_named_by_every_command_of_the_gateway(
    kept: Place, command: tuple[str, ...]
) -> None:
    done = kept.run(*command)
    told(done, "")
    if command not in (("doctor",), ("logs", "--calls")):
        assert done.code in (2, 7), done
        told(done, "mcp_servers" if command[0] != "profile" else "profiles")


def test_a_gateways_database_that_lacks_a_column_is_refused_by_name(shipped: Place) -> None:
    shipped.migrate()
    shipped.write("ALTER TABLE mcp_servers RENAME COLUMN headers TO other")
    done = shipped.run("server", "add", "x", "--", "/bin/cat")
    assert done.code == 7, done
    told(done, "mcp_servers.headers")
