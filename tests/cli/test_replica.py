"""`replica …` and `db restore --at`: what a person does with the copy off the machine."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from local_mcp_gateway.errors import Exit
from tests.harness import (
    DEADLINE_S,
    Finished,
    GatewayProcess,
    Place,
    clean_environment,
    new_place,
    poll,
)
from tests.object_store import S3
from tests.replicas import NAMES, Replica, add, filled, level, replicating, wait_at_rest

Validate = Callable[[str, Any], None]


def test_status_says_where_how_far_behind_and_how_far_back(
    shipped: Place, replica: Replica, validate_json: Validate
) -> None:
    before = shipped.run("replica", "status", "--json", env=replica.env)
    assert before.json()["oldest"] is None
    assert shipped.run("replica", "status", env=replica.env).stdout.splitlines()[-2] == (
        "Moments   none: nothing is there yet"
    )
    with replicating(shipped, replica, "first") as gateway:
        wait_at_rest(shipped)
        found = status(shipped, replica)
        validate_json("replica-status", found)
        assert found["behind_s"] == 0
        assert found["database"] == str(shipped.database)
        assert found["oldest"] <= found["newest"]
        assert found["keep_days"] == 30
        text = shipped.run("replica", "status", env=replica.env).stdout
        assert re.search(r"^State     level$", text, re.MULTILINE)
        assert re.search(r"^Moments   from .* to .*, kept for 30 days$", text, re.MULTILINE)
        shown = metrics(gateway)
        assert "local_mcp_gateway_replica_level 1" in shown
        assert "local_mcp_gateway_replica_behind_seconds 0.0" in shown
        poll(lambda: "local_mcp_gateway_replica_oldest_timestamp_seconds" in metrics(gateway))
        assert "replica_checked_timestamp_seconds" not in metrics(gateway)
        examined = shipped.run("doctor", env=replica.env).stdout
        assert re.search(
            rf"{replica.url}: level(, .* behind)?, back to {found['oldest'][:10]}", examined
        )
        assert f"{replica.url} was never checked." in examined
    validate_json("replica-status", status(shipped, replica))
    assert status(shipped, replica)["state"] == "not running"


def status(place: Place, replica: Replica) -> dict[str, Any]:
    found: dict[str, Any] = place.run("replica", "status", "--json", env=replica.env).json()
    return found


def metrics(gateway: GatewayProcess) -> str:
    with urllib.request.urlopen(gateway.url + "/metrics", timeout=60) as reply:
        text: str = reply.read().decode()
    return text


def test_a_replica_that_fails_is_told_by_status_doctor_and_metrics(
    shipped: Place, in_folder: Replica, tmp_path: Path
) -> None:
    filled(new_place(tmp_path / "other", shipped=True), in_folder, "stranger")
    with shipped.serve(env=in_folder.env) as gateway:
        gateway.wait_for("replica.failed")
        gateway.wait_ready()
        done = shipped.run("replica", "status", env=in_folder.env)
        assert done.code == 3
        assert "is the replica of another database" in done.stdout
        assert "local_mcp_gateway_replica_level 0" in metrics(gateway)
        examined = shipped.run("doctor", env=in_folder.env)
        assert "is the replica of another database" in examined.stdout
        assert examined.code == 3


def test_doctor_names_a_url_that_no_start_takes(shipped: Place) -> None:
    examined = shipped.run("doctor", env={"LMG_REPLICA__URL": "sftp://host/path"})
    assert examined.code == 3
    assert "without a user or a folder" in examined.stdout


def test_without_a_url_status_says_how_to_set_one(shipped: Place) -> None:
    done = shipped.run("replica", "status")
    assert done.code == 7
    assert "No replica is configured." in done.stderr


def test_a_check_compares_every_row_with_the_database(
    shipped: Place, replica: Replica, validate_json: Validate
) -> None:
    with replicating(shipped, replica, "first") as gateway:
        poll(lambda: level(shipped))
        done = shipped.run("replica", "check", "--json", env=replica.env)
        assert done.code == 0, done.stderr
        validate_json("replica-check", done.json())
        assert done.json()["rows"] == "same"
        assert status(shipped, replica)["checked_at"] is not None
        assert (
            f"{replica.url} was checked in the last 24 hours."
            in shipped.run("doctor", env=replica.env).stdout
        )
        text = shipped.run("replica", "check", env=replica.env).stdout
        assert text.endswith("every row is as in the database.\n")
        gateway.stop()
    shipped.write("UPDATE mcp_servers SET name = 'changed'")
    behind = shipped.run("replica", "check", env=replica.env)
    assert behind.code == 3
    assert "not everything is sent yet" in behind.stdout
    assert "mcp_servers: 1 change of rows undone" in behind.stdout


def test_a_restore_of_a_moment_shows_what_goes_and_keeps_the_old_file(
    shipped: Place, replica: Replica, validate_json: Validate
) -> None:
    filled(shipped, replica, "first")
    between = _after_this_second()
    filled(shipped, replica, "second")
    asked = shipped.run("db", "restore", "--at", between.isoformat(), env=replica.env)
    assert asked.code != 0
    assert f"will be replaced by the state at {replica.url} of" in asked.stderr
    assert "Table mcp_servers: 1 row gone." in asked.stderr
    assert shipped.query(NAMES) == [("first",), ("second",)]
    done = shipped.run(
        "db", "restore", "--at", between.isoformat(), "--yes", "--json", env=replica.env
    )
    assert done.code == 0, done.stderr
    validate_json("db-restore", done.json())
    assert done.json()["restored"]["path"] == replica.url
    assert shipped.query(NAMES) == [("first",)]
    assert Path(done.json()["replaced"]).exists()
    last = shipped.run("db", "history", "--json").json()[-1]
    assert last["event"] == "restored"
    assert list(shipped.database.parent.glob(".*fetched*")) == []
    done = shipped.run("replica", "restore", "--yes", "--json", env=replica.env)
    validate_json("replica-restore", done.json())
    assert shipped.query(NAMES) == [("first",), ("second",)]


def _after_this_second() -> datetime:
    """Return a moment that is after everything that was written, once it has passed."""
    moment = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1)
    poll(lambda: datetime.now(UTC) > moment)
    return moment


def test_a_new_machine_gets_the_database_and_hears_which_keys_are_missing(
    shipped: Place, in_bucket: Replica, tmp_path: Path
) -> None:
    add_secret(shipped)
    filled(shipped, in_bucket, "first")
    new = new_place(tmp_path / "new", shipped=True)
    env = in_bucket.env
    url = env.pop("LMG_REPLICA__URL")
    done = new.run("db", "restore", "--from", url, "--yes", env=env)
    assert done.code == 0, done.stderr
    assert "Restore the key from your copy." in done.stderr
    assert new.query(NAMES) == [("first",), ("sealed",)]
    filled(new, in_bucket)


def add_secret(place: Place) -> Finished:
    done = place.run("server", "add", "sealed", "--env", "TOKEN=x", "--", "/bin/cat")
    assert done.code == 0, done.stderr
    return done


def test_moments_that_never_were_are_refused(shipped: Place, in_folder: Replica) -> None:
    filled(shipped, in_folder, "first")
    for moment, code, told in (
        ("2199-01-01 00:00", Exit.USAGE, "is in the future"),
        ("2001-01-01 00:00", Exit.NO_BACKUP, "is before the first moment of the replica"),
        ("soon", Exit.USAGE, "is not a time"),
    ):
        done = shipped.run("db", "restore", "--at", moment, "--yes", env=in_folder.env)
        assert done.code == code
        assert told in done.stderr
    assert shipped.query(NAMES) == [("first",)]


@pytest.mark.parametrize("option", ["--at", "--before", "--from"])
def test_an_unset_variable_does_not_bring_the_newest_state(
    shipped: Place, in_folder: Replica, option: str
) -> None:
    done = shipped.run("db", "restore", option, "", "--yes", env=in_folder.env)
    assert done.code == 2
    assert f"{option} is empty." in done.stderr


@pytest.mark.parametrize("wrong", ["bucket", "keys"])
def test_a_bucket_that_cannot_be_used_is_named_by_each_command_and_nothing_is_lost(
    shipped: Place, in_bucket: Replica, s3: S3, wrong: str
) -> None:
    add(shipped, "first")
    env = in_bucket.env
    if wrong == "bucket":
        env["LMG_REPLICA__URL"], told = "s3://nowhere/gateway", "does not exist (NoSuchBucket)."
    else:
        s3.check_keys()
        told = "(InvalidAccessKeyId)."
    for words in (
        ("replica", "status"),
        ("replica", "check"),
        ("replica", "take-over", "--yes"),
        ("db", "restore", "--at", "latest", "--yes"),
    ):
        done = shipped.run(*words, env=env)
        assert done.code == Exit.NO_BACKUP, words
        sentence, hint = done.stderr.splitlines()
        assert told in sentence
        assert hint.startswith("→ ")
    assert shipped.query(NAMES) == [("first",)]


def test_a_folder_that_is_not_there_is_named(
    shipped: Place, in_folder: Replica, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").rmdir()
    for words in (("replica", "status"), ("replica", "check"), ("db", "restore", "--at", "latest")):
        done = shipped.run(*words, env=in_folder.env)
        assert done.code == 9
        assert f"The folder {tmp_path}/elsewhere does not exist." in done.stderr


def test_status_says_what_the_gateway_knows_where_the_store_does_not_answer(
    shipped: Place, in_folder: Replica, tmp_path: Path
) -> None:
    with replicating(shipped, in_folder, "first") as gateway:
        wait_at_rest(shipped)
        (tmp_path / "elsewhere").rename(tmp_path / "disk")
        gateway.wait_for("replica.failed")
        done = shipped.run("replica", "status", env=in_folder.env)
    assert done.code == 3
    assert "State     failed" in done.stdout
    assert "not sent" not in done.stdout


def test_a_restore_says_that_the_replica_is_of_another_database(
    shipped: Place, in_folder: Replica, tmp_path: Path
) -> None:
    filled(new_place(tmp_path / "other", shipped=True), in_folder, "stranger")
    (tmp_path / "ours").mkdir()
    filled(shipped, Replica(f"file://{tmp_path}/ours"), "first")
    done = shipped.run("db", "restore", "--from", in_folder.url)
    assert done.code == 2
    assert "It is a state of another database than this one." in done.stderr
    assert shipped.query(NAMES) == [("first",)]


def test_a_check_does_not_take_the_lease(
    shipped: Place, in_folder: Replica, tmp_path: Path
) -> None:
    filled(shipped, in_folder, "first")
    new = new_place(tmp_path / "new", shipped=True)
    assert new.run("db", "restore", "--from", in_folder.url, "--yes").code == 0
    assert new.run("replica", "check", env=in_folder.env).code in {0, 3}
    status = shipped.run("replica", "status", "--json", env=in_folder.env).json()
    assert (status["database"], status["checked_at"] is not None) == (str(shipped.database), True)


def test_a_replica_that_is_newer_than_the_program_is_refused(
    shipped: Place, in_folder: Replica, tmp_path: Path
) -> None:
    old = new_place(tmp_path / "old", shipped=True)
    tag = shipped.folder.add("newer", "CREATE TABLE newer (x)")
    filled(shipped, in_folder, "first")
    done = old.run("db", "restore", "--at", "latest", "--yes", env=in_folder.env)
    assert done.code == Exit.REFUSED
    assert f"holds the migration {tag}" in done.stderr
    assert not old.database.exists()


def test_the_newest_state_is_told_with_its_own_time(shipped: Place, in_folder: Replica) -> None:
    filled(shipped, in_folder, "first")
    status = shipped.run("replica", "status", "--json", env=in_folder.env)
    newest = json.loads(status.stdout)["newest"]
    done = shipped.run("db", "restore", "--at", "latest", "--yes", env=in_folder.env)
    assert f"by the state at {in_folder.url} of {newest}." in done.stderr


def test_a_signal_ends_a_restore_that_waits_for_the_store(shipped: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        mute.settimeout(DEADLINE_S)
        replica = Replica("s3://bucket/gateway", f"http://127.0.0.1:{mute.getsockname()[1]}")
        command = subprocess.Popen(
            [*shipped.command, *shipped.options, "db", "restore", "--at", "latest", "--yes"],
            env=clean_environment(shipped.home, **replica.env),
            stderr=subprocess.PIPE,
        )
        asked, _ = mute.accept()  # and it gets no answer
        with asked:
            command.send_signal(signal.SIGTERM)
            _, said = command.communicate(timeout=DEADLINE_S)
    assert command.returncode == 0
    assert b"Stopped by a signal while the store had not answered." in said
    assert list(shipped.database.parent.glob(".*fetched*")) == []


def test_a_restore_waits_for_no_gateway(shipped: Place, in_folder: Replica) -> None:
    with replicating(shipped, in_folder) as gateway:
        done = shipped.run("db", "restore", "--at", "latest", "--yes", env=in_folder.env)
    assert done.code == 4
    assert f"process {gateway.process.pid}" in done.stderr


def test_a_take_over_makes_the_url_ours(
    shipped: Place, in_folder: Replica, tmp_path: Path, validate_json: Validate
) -> None:
    filled(new_place(tmp_path / "other", shipped=True), in_folder, "stranger")
    filled_without = shipped.run("server", "add", "first", "--", "/bin/cat")
    assert filled_without.code == 0
    assert shipped.run("replica", "take-over", env=in_folder.env).code != 0  # not confirmed
    done = shipped.run("replica", "take-over", "--yes", "--json", env=in_folder.env)
    assert done.code == 0, done.stderr
    validate_json("replica-take-over", done.json())
    filled(shipped, in_folder, "second")
    assert in_folder.rows() == [("first",), ("second",)]


def test_a_living_gateway_is_not_taken_over(
    shipped: Place, in_folder: Replica, tmp_path: Path
) -> None:
    other = new_place(tmp_path / "other", shipped=True)
    add(shipped, "first")
    with replicating(other, in_folder):
        done = shipped.run("replica", "take-over", "--yes", env=in_folder.env)
    assert done.code == Exit.REFUSED
    assert "Another gateway replicates to" in done.stderr
