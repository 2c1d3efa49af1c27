"""`logs` and `startup`, after real starts."""

from __future__ import annotations

import json
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from tests.harness import Place, clean_environment, poll


def test_what_was_logged_is_shown_again_filtered_and_as_json_lines(shipped: Place) -> None:
    with shipped.serve() as gateway:
        gateway.wait_ready()
        gateway.stop()
    everything = [json.loads(line) for line in shipped.run("logs", "--json").stdout.splitlines()]
    quiet = ("debug",)
    assert [line["event"] for line in everything if line["level"] not in quiet] == [
        event["event"] for event in gateway.events if event["level"] not in quiet
    ]
    only = shipped.run("logs", "--event", "guard.*", "--json").stdout.splitlines()
    assert {json.loads(line)["event"].partition(".")[0] for line in only} == {"guard"}
    assert shipped.run("logs", "--level", "error").stdout == ""
    assert shipped.run("logs", "--since", "2100-01-01").stdout == ""
    assert len(shipped.run("logs", "-n", "3").stdout.splitlines()) == 3


def test_a_time_that_is_none_is_refused(shipped: Place) -> None:
    done = shipped.run("logs", "--since", "yesterday-ish")
    assert done.code == 2
    assert "→ Write 10m" in done.stderr


def test_following_shows_what_comes(shipped: Place) -> None:
    with subprocess.Popen(
        [*shipped.command, *shipped.options, "logs", "--follow", "-n", "0", "--json"],
        stdout=subprocess.PIPE,
        text=True,
        env={**clean_environment(shipped.home), "PYTHONUNBUFFERED": "1"},
        cwd=shipped.root,
    ) as following:
        assert following.stdout is not None
        poll(lambda: watches(following.pid))
        with shipped.serve() as gateway:
            gateway.wait_ready()
            seen = ""
            while seen != "service.ready":
                seen = json.loads(following.stdout.readline())["event"]
        following.send_signal(signal.SIGINT)
        assert following.wait(30) == 0


def watches(process: int) -> bool:
    """Tell whether a process has begun to watch files."""
    with suppress(OSError):
        descriptors = Path(f"/proc/{process}/fd").iterdir()
        return any("inotify" in str(descriptor.readlink()) for descriptor in descriptors)
    return False


def test_startup_shows_phases_what_was_applied_and_the_backup(shipped: Place) -> None:
    with shipped.serve() as gateway:
        gateway.wait_ready()
        gateway.stop()
    tag = shipped.folder.add("more", "CREATE TABLE more (id INTEGER PRIMARY KEY)")
    with shipped.serve() as gateway:
        gateway.wait_ready()
        gateway.stop()
    (start,) = shipped.run("startup", "--json").json()["starts"]
    assert (start["outcome"], start["state"], start["applied"]) == ("ready", "migrated", [tag])
    assert start["backup"] == str(shipped.backups[0])
    names = [phase["name"] for phase in start["phases"]]
    assert names == [
        "process", "lock", "check", "resolve", "backup", "rehearse", "apply and verify",
        "commit and settle", "gateway", "ready",
    ]  # fmt: skip
    assert start["duration_ms"] >= sum(phase["duration_ms"] for phase in start["phases"]) - 1
    shown = shipped.run("startup", "--last", "2").stdout
    assert shown.count("ready after") == 2
    assert f"applied   {tag}" in shown
    shown = shown.replace(str(shipped.backups[0].parent), "FOLDER")
    assert all(len(line) <= 100 for line in shown.splitlines() if "backup " not in line)


def test_startup_says_why_a_start_was_refused_and_what_to_do(shipped: Place) -> None:
    tag = shipped.folder.add("broken", "CREAT TABLE more (id)")
    shipped.run("serve", "--port", "0")
    (start,) = shipped.run("startup", "--json").json()["starts"]
    assert start["outcome"] == "refused"
    assert start["refusal"]["exit_code"] == 5
    assert tag in start["refusal"]["message"]
    shown = shipped.run("startup").stdout
    assert "refused after" in shown
    assert "→" in shown


def test_startup_shows_how_far_a_killed_start_came(shipped: Place) -> None:
    shipped.folder.add(
        "slow",
        "CREATE TABLE slow (n INTEGER)",
        "INSERT INTO slow WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
        " WHERE i < 100000000) SELECT max(i) FROM n",
    )
    with shipped.serve() as gateway:
        gateway.wait_for("guard.resolved")
        gateway.kill()
    (start,) = shipped.run("startup", "--json").json()["starts"]
    assert start["outcome"] == "unfinished"
    assert [phase["name"] for phase in start["phases"]] == ["process", "lock", "check", "resolve"]
