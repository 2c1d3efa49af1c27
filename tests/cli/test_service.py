"""`service` where there is no systemd, and `startup`; with systemd it is tested in tests/service/systemd."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness import Place


@pytest.mark.parametrize("command", ["install", "status", "start", "stop", "restart"])
def test_without_systemd_a_command_says_so_and_writes_nothing(
    shipped: Place, tmp_path: Path, command: str
) -> None:
    before = sorted(shipped.root.rglob("*"))
    done = shipped.run("service", command, env={"PATH": str(tmp_path)})
    assert done.code == 7
    assert "`systemctl` is not installed here." in done.stderr
    assert "run `serve` under another supervisor" in done.stderr
    assert sorted(shipped.root.rglob("*")) == before


def test_without_systemd_there_is_nothing_to_uninstall_and_the_data_stays(
    shipped: Place, tmp_path: Path
) -> None:
    done = shipped.run("service", "uninstall", env={"PATH": str(tmp_path)})
    assert done.code == 0
    assert str(shipped.database) in done.stdout


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
        "process", "lock", "check", "plan", "backup", "rehearse", "apply and verify",
        "commit, durable", "gateway", "ready",
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
    assert [phase["name"] for phase in start["phases"]] == ["process", "lock", "check", "plan"]
