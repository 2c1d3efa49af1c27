"""Before a migration everything is sent, and exactly that state can be restored later."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from local_mcp_gateway.service.replica import fetch, moments
from tests.harness import Place, poll
from tests.object_store import S3
from tests.replicas import NAMES, Replica, add, filled, level, replicating


def tables_of(file: Path) -> set[str]:
    with closing(sqlite3.connect(file)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}


@pytest.mark.parametrize("way", ["start", "command", "server", "reload"])
def test_the_state_before_a_migration_comes_back(
    shipped: Place, replica: Replica, way: str
) -> None:
    filled(shipped, replica, "first")
    add(shipped, "unsent")
    if way == "reload":
        with replicating(shipped, replica) as gateway:
            tag = shipped.folder.add("more", "CREATE TABLE more (x)")
            done = shipped.run("reload", env=replica.env)
            assert done.code == 0, done.stderr
            pinned = gateway.wait_for("replica.pinned")
            assert pinned["tag"] == tag
            gateway.wait_for("replica.started", after=gateway.events.index(pinned))
            add(shipped, "after")
            assert gateway.stop() == 0
    else:
        tag = shipped.folder.add("more", "CREATE TABLE more (x)")
        if way == "command":
            assert shipped.run("db", "migrate", env=replica.env).code == 0
        if way == "server":
            assert shipped.run("server", "remove", "first", "--yes", env=replica.env).code == 0
        filled(shipped, replica, "after")
    done = shipped.run("db", "restore", "--before", tag, "--yes", env=replica.env)
    assert done.code == 0, done.stderr
    assert f"Migration {tag} was applied since" in done.stderr
    assert shipped.query(NAMES) == [("first",), ("unsent",)]
    assert "more" not in tables_of(shipped.database)


def test_the_state_before_a_revert_comes_back(shipped: Place, in_folder: Replica) -> None:
    tag = shipped.folder.add("more", "CREATE TABLE more (x)", down="DROP TABLE more")
    filled(shipped, in_folder, "first")
    add(shipped, "unsent")
    shipped.write("INSERT INTO more VALUES (1)")
    done = shipped.run("db", "down", "--yes", env=in_folder.env)
    assert done.code == 0, done.stderr
    assert "more" not in tables_of(shipped.database)
    add(shipped, "after")
    done = shipped.run("db", "restore", "--before", f"down-{tag}", "--yes", env=in_folder.env)
    assert done.code == 0, done.stderr
    assert shipped.query(NAMES) == [("first",), ("unsent",)]
    assert shipped.query("SELECT x FROM more") == [(1,)]


@pytest.mark.parametrize(
    ("policy", "code"), [("wait", 9), pytest.param("warn", 0, marks=pytest.mark.nightly)]
)  # a minute each
def test_a_store_that_does_not_answer_refuses_the_migration_or_is_told(
    shipped: Place, in_bucket: Replica, s3: S3, policy: str, code: int
) -> None:
    filled(shipped, in_bucket, "first")
    tag = shipped.folder.add("more", "CREATE TABLE more (x)")
    s3.freeze()
    env = {**in_bucket.env, "LMG_REPLICA__BEFORE_MIGRATION": policy, "LMG_REPLICA__WAIT_S": "2"}
    done = shipped.run("--log-format", "json", "db", "migrate", env=env)
    assert done.code == code, done.stderr
    assert ("more" in tables_of(shipped.database)) is (policy == "warn")
    if policy == "wait":
        assert f"{tag} was not applied" in done.stderr
    else:
        assert [e["tag"] for e in done.events() if e["event"] == "replica.not_pinned"] == [tag]


def test_a_database_that_was_never_replicated_is_migrated(
    shipped: Place, in_folder: Replica
) -> None:
    shipped.migrate()
    shipped.folder.add("more", "CREATE TABLE more (x)")
    done = shipped.run("--log-format", "json", "db", "migrate", env=in_folder.env)
    assert done.code == 0
    assert [e["event"] for e in done.events()] == ["replica.not_pinned"]


def test_a_migration_without_a_note_is_refused_by_its_tag(
    shipped: Place, in_folder: Replica
) -> None:
    filled(shipped, in_folder, "first")
    first = shipped.folder.journal()[0]["tag"]
    done = shipped.run("db", "restore", "--before", first, "--yes", env=in_folder.env)
    assert done.code == 2
    assert f"is from before {first}" in done.stderr


@pytest.mark.nightly
def test_each_of_ten_moments_comes_back_with_its_schema_and_rows(
    shipped: Place, replica: Replica, tmp_path: Path
) -> None:
    """Three migrations, of which one rebuilds and one is a VACUUM; each state is told apart by its second."""
    shipped.folder.add("notes", "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)")
    filled(shipped, replica)
    changes = [
        "CREATE TABLE more (x)",
        (
            "CREATE TABLE new (id INTEGER PRIMARY KEY, text TEXT NOT NULL DEFAULT '', at INTEGER);"
            "\n--> statement-breakpoint\nINSERT INTO new (id, text) SELECT id, text FROM notes;"
            "\n--> statement-breakpoint\nDROP TABLE notes;"
            "\n--> statement-breakpoint\nALTER TABLE new RENAME TO notes;"
        ),
        "-- guard: no-transaction\nVACUUM",
    ]
    known: list[tuple[float, set[str], int]] = []
    rows = 0
    for round_ in range(10):
        if round_ in (3, 5, 7):
            shipped.folder.add(f"change{round_}", changes.pop(0))
        with replicating(shipped, replica) as gateway:
            for _ in range(round_ + 1):
                shipped.write("INSERT INTO notes (text) VALUES ('x')")
                rows += 1
            assert level(shipped)
            assert gateway.stop() == 0
        # Litestream's moments are whole seconds: the next round begins in another one.
        known.append((_next_second(), tables_of(shipped.database), rows))
    there = moments(replica.target)
    assert there is not None
    for at, tables, count in known:
        file = tmp_path / f"{at}.db"
        fetch(replica.target, file, moment=datetime.fromtimestamp(at, UTC))
        assert tables_of(file) == tables
        with closing(sqlite3.connect(file)) as connection:
            assert connection.execute("SELECT count(*) FROM notes").fetchone() == (count,)
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def _next_second() -> float:
    """Return a moment after everything that was written, when the second after it has begun."""
    moment = float(int(time.time()) + 1)
    poll(lambda: time.time() >= moment + 1)
    return moment
