"""The table of situations, row by row: real commands, and the code and exit code that they end with."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest

from local_mcp_gateway.errors import GatewayError, situations
from local_mcp_gateway.guard import guarded
from tests.harness import Finished, Place

Attempt = Callable[[Place], Finished]
ROWS: dict[str, Attempt] = {}


def row(code: str) -> Callable[[Attempt], Attempt]:
    def keep(attempt: Attempt) -> Attempt:
        ROWS[code] = attempt
        return attempt

    return keep


def migrated(place: Place) -> Place:
    place.folder.add("users", "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)")
    place.migrate()
    place.write("INSERT INTO users VALUES (1, 'ada')")
    return place


def try_sql(place: Place, sql: str, **env: str) -> Finished:
    migrated(place).folder.add("next", sql)
    return place.run("db", "migrate", "--json", env=env)


@row("usage")
def _(place: Place) -> Finished:
    return migrated(place).run("db", "migrate", "--to", "0009_nothing", "--json")


@row("schema")
def _(place: Place) -> Finished:
    (place.root / "schema.sql").write_text("CREATE TABEL x (y);")
    return place.run("db", "diff", "--from", "schema.sql", "--to", "schema.sql", "--json")


@row("not_confirmed")
def _(place: Place) -> Finished:
    return migrated(place).run("db", "reset", "--json")


@row("no_such_backup")
def _(place: Place) -> Finished:
    return migrated(place).run("db", "restore", "nowhere", "--yes", "--json")


@row("config")
def _(place: Place) -> Finished:
    return place.run("db", "status", "--json", env={"LMG_GATEWAY__PORT": "many"})


@row("database_path")
def _(place: Place) -> Finished:
    nowhere = place.root / "no" / "x.db"
    return place.run("--database", nowhere, "db", "migrate", "--json", bare=True)


@row("migrations_folder")
def _(place: Place) -> Finished:
    options = ("--database", place.database, "--migrations", place.root / "nowhere")
    return place.run(*options, "db", "migrate", "--json", bare=True)


@row("port_in_use")
def _(place: Place) -> Finished:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = place.run("--log-format", "json", "serve", "--port", str(taken.getsockname()[1]))
    return from_log(done)


@row("no_service_manager")
def _(place: Place) -> Finished:
    environment = {
        "XDG_RUNTIME_DIR": str(place.root),
        "DBUS_SESSION_BUS_ADDRESS": "unix:path=/none",
    }
    return place.run("service", "status", "--json", env=environment)


@row("locked")
def _(place: Place) -> Finished:
    with guarded(migrated(place).database, place.folder.path):
        return place.run("db", "migrate", "--lock-timeout", "0", "--json")


@row("busy")
def _(place: Place) -> Finished:
    migrated(place).folder.add("next", "CREATE TABLE next (x)")
    with closing(sqlite3.connect(place.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        return place.run("db", "migrate", "--json")


@row("migration_failed")
def _(place: Place) -> Finished:
    return try_sql(place, "CREATE TABEL x (y)")


@row("forbidden_statement")
def _(place: Place) -> Finished:
    return try_sql(place, "ATTACH 'other.db' AS other")


@row("verification_failed")
def _(place: Place) -> Finished:
    place.folder.add("t", "CREATE TABLE t (id INTEGER PRIMARY KEY, k TEXT UNIQUE)")
    place.migrate()
    place.write("INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    place.folder.add("replace", "INSERT OR REPLACE INTO t VALUES (1, 'b')")
    return place.run("db", "migrate", "--json")


@row("seed_failed")
def _(place: Place) -> Finished:
    (place.root / "seed.sql").write_text("INSERT INTO nowhere VALUES (1);")
    return migrated(place).run("db", "seed", "seed.sql", "--json")


@row("double_quoted_string")
def _(place: Place) -> Finished:
    return try_sql(place, 'UPDATE users SET name = "nmae"')


@row("not_a_database")
def _(place: Place) -> Finished:
    place.database.write_text("not a database, " * 100)
    return place.run("db", "migrate", "--json")


@row("damaged")
def _(place: Place) -> Finished:
    migrated(place).write("CREATE TABLE many AS SELECT hex(randomblob(500)) AS x FROM users")
    with place.database.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(4096))
    return place.run("db", "migrate", "--json")


@row("backup_damaged")
def _(place: Place) -> Finished:
    migrated(place).run("db", "backup", "create")
    (backup,) = place.backups
    backup.write_bytes(backup.read_bytes()[:-1] + b"x")
    return place.run("db", "restore", "latest", "--yes", "--json")


@row("backup_foreign")
def _(place: Place) -> Finished:
    place.folder.add("other", "CREATE TABLE other (x)")
    place.migrate()
    place.run("db", "backup", "create")
    shutil.rmtree(place.folder.path)
    place.folder.add("mine", "CREATE TABLE mine (x)")
    return place.run("db", "restore", "latest", "--yes", "--json")


@row("database_emptied")
def _(place: Place) -> Finished:
    migrated(place).database.unlink()
    return place.run("db", "migrate", "--json")


@row("history")
def _(place: Place) -> Finished:
    migrated(place).folder.write("0000_users", "CREATE TABLE users (id INTEGER PRIMARY KEY)")
    return place.run("db", "migrate", "--json")


@row("applied")
def _(place: Place) -> Finished:
    return migrated(place).run("db", "drop", "--yes", "--json")


@row("no_way_back")
def _(place: Place) -> Finished:
    return migrated(place).run("db", "down", "--yes", "--json")


@row("not_adopted")
def _(place: Place) -> Finished:
    place.write("CREATE TABLE something_else (x)")
    place.folder.add("users", "CREATE TABLE users (id INTEGER PRIMARY KEY)")
    return place.run("db", "adopt", "--yes", "--json")


@row("drift")
def _(place: Place) -> Finished:
    migrated(place).write("CREATE TABLE by_hand (x)")
    place.folder.add("next", "CREATE TABLE next (x)")
    return place.run("db", "migrate", "--json")


@row("hazard")
def _(place: Place) -> Finished:
    return try_sql(place, "DELETE FROM users", LMG_GUARD__DESTRUCTIVE="refuse")


@row("backup_failed")
def _(place: Place) -> Finished:
    (migrated(place).database.parent / "backups").write_text("a file where a folder should be")
    place.folder.add("next", "CREATE TABLE next (x)")
    return place.run("db", "migrate", "--json")


@row("sealed_value")
def _(place: Place) -> Finished:
    ours = ("--database", place.database)
    place.run(*ours, "server", "add", "a", "--env", "A=1", "--", "true", bare=True)
    (place.home / ".config" / "local-mcp-gateway.key").unlink()
    return place.run(*ours, "server", "show", "a", "--secrets", "--json", bare=True)


@row("no_secrets_key")
def _(place: Place) -> Finished:
    ours = ("--database", place.database)
    (place.home / ".config").write_text("a file where a folder should be")
    return place.run(*ours, "server", "add", "a", "--env", "A=1", "--json", "--", "true", bare=True)


@row("upstream")
def _(place: Place) -> Finished:
    ours = ("--database", place.database)  # and the migrations that came with the program
    place.run(*ours, "server", "add", "ghost", "--", "no-such-command", bare=True)
    return place.run(*ours, "server", "test", "ghost", "--json", bare=True)


@row("copy_failed")
def _(place: Place) -> Finished:
    migrated(place)
    public = place.run("db", "backup", "key", "--json").json()["recipient"]
    env = {"LMG_BACKUP__COPY_TO": "file:///nowhere", "LMG_BACKUP__COPY_RECIPIENTS": public}
    return place.run("db", "backup", "copy", "--json", env=env)


def from_log(done: Finished) -> Finished:
    """Turn the refusal that `serve` logs into the object that `--json` prints."""
    event = done.events()[-1]
    error = {key: event[key] for key in ("code", "message", "hint", "exit_code")}
    return Finished(done.code, json.dumps({"error": error}), "")


ELSEWHERE = {
    "unexpected": "the last door; nothing is meant to reach it",
    "interrupted": "tests/guard/test_guard.py: a stop is no error, exit 0",
    "no_room": "tests/cli/test_backup.py: a small disk, as root",
    "output_lost": "tests/cli/test_streams.py: there is no stdout to look at",
    "database_gone": "tests/service/test_database_gone.py: a gateway whose file is taken away",
    "foreign_log": "tests/cli/test_foreign_log.py: a copy next to the log of another file",
    "no_resources": "tests/service/test_resources.py: no thread, no memory, no files",
    "program_replaced": "tests/cli/test_serve.py: a reload under another version of the program",
    "replica": "tests/service/replica/: Litestream that is not there, a store that does not answer",
    "replica_taken": "tests/service/replica/test_store.py: a URL that another database uses",
    "copy_key": "tests/cli/test_copies.py: a restore without the key, and with another",
    "disk": "faults/: EIO and ENOSPC at every write",
}
BY_CODE = {situation.code: situation for situation in situations()}


def test_the_rows_are_the_closed_table() -> None:
    assert set(ROWS) | set(ELSEWHERE) == set(BY_CODE)
    assert not set(ROWS) & set(ELSEWHERE)


@pytest.mark.parametrize("code", ROWS)
def test_each_situation_ends_with_its_code_one_sentence_and_a_hint(place: Place, code: str) -> None:
    done = ROWS[code](place)
    situation: type[GatewayError] = BY_CODE[code]
    assert done.stdout, done.stderr
    error = done.json()["error"]
    assert (error["code"], error["exit_code"]) == (code, int(situation.exit_code)), error
    assert done.code == situation.exit_code
    assert error["message"].endswith((".", "?", "!"))
    assert error["hint"]
    assert "Traceback" not in done.stdout + done.stderr
