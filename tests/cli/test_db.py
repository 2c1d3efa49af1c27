"""`db migrate` and `db status` as a person or a script runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest

from local_mcp_gateway.guard import guarded
from tests.harness import Place, clean_environment


@pytest.fixture
def users(place: Place) -> Place:
    place.folder.add("users", "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)")
    return place


def start_migrate(place: Place) -> subprocess.Popen[str]:
    log = ("--log-format", "json", "--log-level", "info")
    return subprocess.Popen(
        [*place.command, *place.options, *log, "db", "migrate"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(place.home),
    )


def test_migrate_creates_then_has_nothing_to_do(users: Place) -> None:
    first = users.run("db", "migrate")
    assert first.code == 0
    assert "applied  0000_users  1 statement" in first.stdout
    assert first.stderr == ""
    second = users.run("db", "migrate")
    assert second.stdout.startswith("Nothing to do: ")


def test_migrate_prints_its_result_as_json(users: Place) -> None:
    result = users.run("db", "migrate", "--json").json()
    assert result["state"] == "created"
    assert [step["tag"] for step in result["applied"]] == ["0000_users"]
    assert result["backup"] is None


def test_a_dry_run_lists_what_is_pending_and_changes_nothing(users: Place) -> None:
    seen = users.run("db", "migrate", "--dry-run", "--json")
    assert seen.code == 3
    assert [pending["tag"] for pending in seen.json()["pending"]] == ["0000_users"]
    assert not users.database.exists()
    users.migrate()
    assert users.run("db", "migrate", "--dry-run").code == 0


def test_a_dry_run_names_the_hazards(users: Place) -> None:
    users.migrate()
    users.folder.add("drop", "DROP TABLE users")
    seen = users.run("db", "migrate", "--dry-run")
    assert seen.code == 3
    assert "deletes_data" in seen.stdout


def test_a_dry_run_is_refused_where_the_migration_would_be(users: Place) -> None:
    users.migrate()
    tag = users.folder.add("drop", "ALTER TABLE users DROP COLUMN name")
    env = {"LMG_GUARD__DESTRUCTIVE": "refuse"}
    shown = users.run("db", "migrate", "--dry-run", env=env)
    assert (shown.code, f"{tag} is not accepted" in shown.stderr) == (8, True)
    assert "deletes_data: users.name is dropped" in shown.stdout
    refused = users.run("db", "migrate", "--dry-run", "--json", env=env)
    assert (refused.code, refused.json()["error"]["code"]) == (8, "hazard")


def test_migrate_waits_for_the_holder_of_the_lock(users: Place) -> None:
    with guarded(users.database, users.folder.path):
        users.folder.add("more", "CREATE TABLE more (x)")
        refused = users.run("db", "migrate", "--lock-timeout", "0")
        assert refused.code == 4
        assert f"process {os.getpid()}" in refused.stderr
        waiting = start_migrate(users)
        assert waiting.stderr is not None
        event = json.loads(waiting.stderr.readline())
        assert (event["event"], event["pid"]) == ("guard.waiting", os.getpid())
    out, _ = waiting.communicate(timeout=60)
    assert waiting.returncode == 0
    assert "0001_more" in out


def test_sigterm_during_a_migration_ends_with_0_and_the_old_database(users: Place) -> None:
    users.migrate()
    before = users.content()
    users.folder.add(
        "endless",
        "CREATE TABLE n AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)"
        " SELECT max(x) AS x FROM c",
    )
    process = start_migrate(users)
    assert process.stderr is not None
    for line in process.stderr:
        if "backup.created" in line:
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert users.content() == before


def test_status_of_each_state_has_its_exit_code(users: Place) -> None:
    assert users.run("db", "status").code == 3
    assert users.run("db", "status", "--json").json()["state"] == "new"
    users.migrate()
    assert users.run("db", "status").code == 0
    users.folder.add("more", "CREATE TABLE more (x)")
    pending = users.run("db", "status", "--json")
    assert (pending.code, pending.json()["state"]) == (3, "pending")
    users.folder.write("0000_users", "CREATE TABLE users (x)")
    refused = users.run("db", "status", "--json")
    assert (refused.code, refused.json()["state"]) == (8, "refused")
    assert [problem["code"] for problem in refused.json()["problems"]] == ["edited"]
    users.database.write_bytes(b"no database at all")
    damaged = users.run("db", "status", "--json")
    assert (damaged.code, damaged.json()["state"]) == (6, "damaged")


def test_status_shows_a_table_that_was_made_by_hand(users: Place) -> None:
    users.migrate()
    users.write("CREATE TABLE by_hand (x)")
    seen = users.run("db", "status", "--json")
    assert seen.code == 3
    assert [entry["object"] for entry in seen.json()["drift"]] == ["by_hand"]


def test_drift_that_was_tolerated_once_is_still_named_afterwards(users: Place) -> None:
    users.migrate()
    users.write("CREATE TABLE by_hand (x)")
    users.folder.add("more", "CREATE TABLE more (x)")
    assert users.run("db", "migrate").code == 8
    migrated = users.run("db", "migrate", env={"LMG_GUARD__DRIFT": "warn"})
    assert migrated.code == 0, migrated.stderr
    seen = users.run("db", "status", "--json").json()
    assert [entry["object"] for entry in seen["drift"]] == ["by_hand"]
    assert users.run("db", "check").code == 3
    users.write("DROP TABLE by_hand")
    assert users.run("db", "status").code == 0


def test_history_tells_what_happened(users: Place) -> None:
    assert users.run("db", "history").stdout == "Nothing has happened to this database yet.\n"
    users.migrate()
    (event,) = users.run("db", "history", "--json").json()
    assert (event["event"], event["tag"]) == ("applied", "0000_users")


def test_status_weighs_a_pending_rebuild_by_the_rows_that_are_there(users: Place) -> None:
    users.migrate()
    users.write("INSERT INTO users (name) VALUES ('ada'), ('grace'), ('linus')")
    users.folder.add(
        "rebuild",
        "CREATE TABLE __new_users (id INTEGER PRIMARY KEY, name TEXT NOT NULL)",
        "INSERT INTO __new_users SELECT id, name FROM users",
        "DROP TABLE users",
        "ALTER TABLE __new_users RENAME TO users",
    )
    (pending,) = users.run("db", "status", "--json").json()["pending"]
    assert any("3 rows" in hazard["message"] for hazard in pending["hazards"]), pending
