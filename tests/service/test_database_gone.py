"""The database's file is taken away under a gateway that serves: it says so, and acknowledges nothing more."""

from __future__ import annotations

import json
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from local_mcp_gateway.database.lock import lock_path
from tests.harness import GatewayProcess, Place


def health(gateway: GatewayProcess) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(gateway.url + "/health/ready", timeout=60) as reply:
            return reply.status, json.load(reply)["status"]
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)["status"]


def side_files(database: Path) -> list[Path]:
    return [database, Path(f"{database}-wal"), Path(f"{database}-shm")]


def deleted(database: Path) -> None:
    for path in side_files(database):
        path.unlink()


def moved(database: Path) -> None:
    database.rename(database.with_name("moved.db"))


def replaced(database: Path) -> None:
    other = database.with_name("other.db")
    sqlite3.connect(other).executescript("CREATE TABLE t(x)").connection.close()
    other.rename(database)


def without_log(database: Path) -> None:
    Path(f"{database}-wal").unlink()


def written_over(database: Path) -> None:
    """Copy another database into the file, as `cp` does; it has higher counters, and is in WAL mode too."""
    other = database.with_name("other.db")
    with closing(sqlite3.connect(other, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        for number in range(60):
            connection.execute(f"CREATE TABLE t{number}(x)")
    database.write_bytes(other.read_bytes())


def emptied(database: Path) -> None:
    database.write_bytes(b"")


@pytest.fixture
def served(shipped: Place) -> Iterator[GatewayProcess]:
    with shipped.serve() as gateway:
        gateway.wait_ready()
        assert shipped.run("server", "add", "first", "--", "/bin/cat").code == 0
        yield gateway


@pytest.mark.parametrize("how", [deleted, moved, replaced, without_log, written_over, emptied])
def test_it_is_noticed_and_nothing_more_is_acknowledged(
    shipped: Place,
    served: GatewayProcess,
    validate_json: Callable[[str, Any], None],
    how: Callable[[Path], None],
) -> None:
    how(shipped.database)
    added = shipped.run("server", "add", "second", "--", "/bin/cat", "--json")
    assert (added.code, added.json()["error"]["code"]) == (8, "database_gone")
    event = served.wait_for("database.gone")
    assert (event["level"], event["code"]) == ("error", "database_gone")
    assert health(served) == (503, "database_gone")
    status = shipped.run("db", "status", "--json").json()
    validate_json("db-status", status)
    assert status["state"] in ("refused", "damaged")  # what is there now may be anything
    assert status["problems"][0]["code"] == "database_gone"
    findings = shipped.run("doctor", "--json").json()["findings"]
    assert findings[0]["message"] == status["problems"][0]["message"]
    assert served.stop() == 0


def test_a_file_that_comes_back_is_served_and_written_again(
    shipped: Place, served: GatewayProcess
) -> None:
    aside = shipped.database.with_name("aside.db")
    shipped.database.rename(aside)
    served.wait_for("database.gone")
    aside.rename(shipped.database)
    served.wait_for("database.returned")
    assert health(served) == (200, "ready")
    assert shipped.run("server", "add", "second", "--", "/bin/cat").code == 0
    assert served.stop() == 0
    assert shipped.query("SELECT name FROM mcp_servers") == [("first",), ("second",)]


def test_the_stop_takes_nothing_from_a_file_that_took_its_place(
    shipped: Place, served: GatewayProcess
) -> None:
    deleted(shipped.database)
    with closing(sqlite3.connect(shipped.database, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode=WAL")
        other.execute("CREATE TABLE t AS SELECT 1 AS x")
        served.wait_for("database.gone")
        assert served.stop() == 0
        assert Path(f"{shipped.database}-wal").exists()
        other.execute("INSERT INTO t VALUES (2)")
    assert shipped.query("SELECT x FROM t") == [(1,), (2,)]
    assert lock_path(shipped.database).exists()


def test_a_copy_that_was_written_over_the_file_is_not_changed_by_the_stop_or_the_next_start(
    shipped: Place, served: GatewayProcess
) -> None:
    assert shipped.run("db", "backup", "create").code == 0
    for name in ("second", "third"):
        assert shipped.run("server", "add", name, "--", "/bin/cat").code == 0
    written_over(shipped.database)
    before = shipped.database.read_bytes()
    served.wait_for("database.gone")
    assert served.stop() == 0
    assert shipped.database.read_bytes() == before
    assert shipped.run("db", "migrate").code == 8
    assert shipped.database.read_bytes() == before
    assert shipped.run("db", "restore", "latest", "--yes").code == 0
    assert shipped.query("SELECT name FROM mcp_servers") == [("first",)]
    assert shipped.run("db", "migrate").code == 0


def test_a_reload_and_its_migrations_are_refused_too(
    shipped: Place, served: GatewayProcess
) -> None:
    deleted(shipped.database)
    shipped.folder.add("more", "CREATE TABLE more (id INTEGER PRIMARY KEY);")
    refused = shipped.run("reload", "--json")
    assert (refused.code, refused.json()["error"]["code"]) == (8, "database_gone")
    assert not shipped.database.exists()
    assert served.stop() == 0
