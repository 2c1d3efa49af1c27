"""A gateway copies its backups off the machine while it serves, and whatever fails there is nothing to its calls."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from local_mcp_gateway.service.admin import ask
from tests.harness import GatewayProcess, Place, poll
from tests.object_store import KEYS, S3, line_to


@pytest.fixture
def env(shipped: Place, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "disk").mkdir()
    public = shipped.run("db", "backup", "key", "--json").json()["recipient"]
    return {
        "LMG_BACKUP__COPY_TO": f"file://{tmp_path / 'disk'}",
        "LMG_BACKUP__COPY_RECIPIENTS": public,
    }


def add_migration(place: Place, name: str) -> None:
    place.folder.add(name, f"CREATE TABLE {name} (id INTEGER PRIMARY KEY)")


def copied(gateway: GatewayProcess, after: int = 0) -> str:
    name: str = gateway.wait_for("backup.copied", after=after)["name"]
    return name


def test_the_backup_of_a_start_is_copied_once_it_serves(
    shipped: Place, env: dict[str, str], tmp_path: Path
) -> None:
    shipped.migrate()
    add_migration(shipped, "one")
    with shipped.serve(env=env) as gateway:
        name = copied(gateway)
        assert gateway.names().index("service.ready") < gateway.names().index("backup.copied")
        assert gateway.stop() == 0
    assert (tmp_path / "disk" / f"{name}.json").exists()
    assert [backup.stem for backup in shipped.backups] == [name]


def test_metrics_and_status_say_what_is_off_the_machine(
    shipped: Place, env: dict[str, str]
) -> None:
    shipped.migrate()
    add_migration(shipped, "one")
    with shipped.serve(env=env) as gateway:
        copied(gateway)
        poll(lambda: "\nlocal_mcp_gateway_copies 1\n" in metrics(gateway))
        for line in ("copies_missing 0", "copies_failed 0"):
            assert f"\nlocal_mcp_gateway_{line}\n" in metrics(gateway)
        found = ask(shipped.database, "status", {}, timeout_s=60)["copies"]
        assert found["oldest"] == found["newest"]
        assert found["listed_at"] <= found["newest"]
    assert "Copies from 20" in findings(shipped, **env)[0]["message"]


def metrics(gateway: GatewayProcess) -> str:
    with urllib.request.urlopen(gateway.url + "/metrics", timeout=60) as reply:
        text: str = reply.read().decode()
    return text


def test_the_backup_of_a_reload_is_copied_too(shipped: Place, env: dict[str, str]) -> None:
    shipped.migrate()
    with shipped.serve(env=env) as gateway:
        gateway.wait_ready()
        add_migration(shipped, "one")
        assert shipped.run("reload").code == 0
        assert copied(gateway).endswith("_one")


def test_a_store_that_fails_is_told_and_tried_again_while_the_gateway_serves(
    shipped: Place, env: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "disk").rmdir()
    shipped.migrate()
    add_migration(shipped, "one")
    with shipped.serve(env=env) as gateway:
        failed = gateway.wait_for("backup.copy_failed")
        assert failed["code"] == "copy_failed"
        assert gateway.is_live()
        doctor = shipped.run("doctor", "--json", env=env).json()["findings"]
        found = next(finding for finding in doctor if finding["check"] == "copies")
        assert found["state"] == "problem"
        assert "1 backup not copied" in found["message"]
        (tmp_path / "disk").mkdir()
        add_migration(shipped, "two")
        assert shipped.run("reload", env=env).code == 0
        copied(gateway)
        gateway.until(lambda: gateway.names().count("backup.copied") == 2)


def test_a_store_that_stands_still_delays_neither_start_nor_stop(
    shipped: Place, env: dict[str, str], s3: S3
) -> None:
    shipped.migrate()
    add_migration(shipped, "one")
    with line_to(s3.port) as line:
        line.stop_after(0, cuts=False)
        frozen = {
            **env,
            **KEYS,
            "LMG_BACKUP__COPY_TO": "s3://bucket/x",
            "LMG_BACKUP__COPY_ENDPOINT": line.endpoint,
        }
        with shipped.serve(env=frozen) as gateway:
            gateway.wait_ready()
            assert line.reached.wait(60)
            assert gateway.is_live()
            assert gateway.stop() == 0
        assert "backup.copied" not in gateway.names()
        line.mend()
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in "\n".join(gateway.lines)


def test_the_keys_are_in_no_argument_of_any_process(
    shipped: Place, env: dict[str, str], s3: S3
) -> None:
    shipped.migrate()
    with line_to(s3.port) as line:
        line.stop_after(0, cuts=False)
        frozen = {**env, **KEYS, "LMG_BACKUP__COPY_TO": "s3://bucket/x"}
        with shipped.serve(env={**frozen, "LMG_BACKUP__COPY_ENDPOINT": line.endpoint}) as gateway:
            assert line.reached.wait(60)
            for arguments in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    shown = arguments.read_bytes()
                except OSError:
                    continue
                assert KEYS["AWS_SECRET_ACCESS_KEY"].encode() not in shown
            gateway.stop()
        line.mend()


def test_a_place_that_a_reload_brings_is_used_at_once(
    shipped: Place, env: dict[str, str], tmp_path: Path
) -> None:
    shipped.migrate()
    assert shipped.run("db", "backup", "create").code == 0
    config = tmp_path / "gateway.toml"
    config.write_text("[gateway]\n")
    options = (*shipped.options, "--config", str(config))
    with shipped.serve(options=options) as gateway:
        gateway.wait_ready()
        config.write_text(
            f'[backup]\ncopy_to = "{env["LMG_BACKUP__COPY_TO"]}"\n'
            f"copy_recipients = {json.dumps([env['LMG_BACKUP__COPY_RECIPIENTS']])}\n"
        )
        assert shipped.run("reload").code == 0
        copied(gateway)


def test_dev_mode_copies_nothing(shipped: Place, env: dict[str, str], tmp_path: Path) -> None:
    shipped.migrate()
    assert shipped.run("db", "backup", "create").code == 0
    with shipped.serve("--dev", env={**env, "LMG_DEV__RELOAD": "false"}) as gateway:
        gateway.wait_ready()
        assert gateway.stop() == 0
    assert list((tmp_path / "disk").iterdir()) == []


def findings(place: Place, **env: str) -> list[dict[str, Any]]:
    found = place.run("doctor", "--json", env=env).json()["findings"]
    return [finding for finding in found if finding["check"] == "copies"]


def test_doctor_says_where_backups_are_and_which_are_missing(
    shipped: Place, env: dict[str, str]
) -> None:
    shipped.migrate()
    assert shipped.run("db", "backup", "create").code == 0
    (nowhere,) = findings(shipped)
    assert (nowhere["state"], "this machine alone" in nowhere["message"]) == ("note", True)
    behind = findings(shipped, **env)
    assert "1 backup of 1 not copied" in behind[0]["message"]
    assert shipped.run("db", "backup", "copy", env=env).code == 0
    level, same_disk, key = findings(shipped, **env)
    assert level["state"] == "ok"
    assert "same disk" in same_disk["message"]
    assert "a lost machine takes it along" in key["message"]


def test_doctor_calls_no_backup_copied_to_what_is_no_place(shipped: Place) -> None:
    shipped.migrate()
    (found,) = findings(shipped, LMG_BACKUP__COPY_TO="ftp://host/x")
    assert found["state"] == "problem"
    assert "backup.copy_to is 'ftp://host/x'" in found["message"]
