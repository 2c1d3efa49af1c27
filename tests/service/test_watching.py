"""Saved files are seen also where the kernel lets nothing be watched any more."""

from __future__ import annotations

import subprocess

import pytest

from tests.harness import Place, clean_environment

NOTHING_TO_WATCH_WITH = (
    *("unshare", "--user", "--map-root-user", "sh", "-c"),
    'echo 0 > /proc/sys/user/max_inotify_instances && exec "$@"',
    "sh",
)
"""A user namespace with a limit of its own, so that nobody else's watchers are touched."""


@pytest.fixture(autouse=True)
def _possible() -> None:
    done = subprocess.run([*NOTHING_TO_WATCH_WITH, "true"], check=False, capture_output=True)
    if done.returncode:
        pytest.skip(f"no user namespace here: {done.stderr.decode().strip()}")


def test_dev_mode_looks_for_saved_migrations_when_they_cannot_be_watched(shipped: Place) -> None:
    with shipped.serve("--dev", prefix=NOTHING_TO_WATCH_WITH) as gateway:
        gateway.wait_for("dev.watching")
        told = gateway.wait_for("dev.polling")
        assert told["message"].startswith(
            "Saved files cannot be watched and are looked for instead"
        )
        assert "max_user_instances" in told["hint"]
        gateway.wait_ready()
        shipped.folder.write("0004_notes", "CREATE TABLE notes (id INTEGER PRIMARY KEY);")
        assert gateway.wait_for("migration.hot_applied")["tag"] == "0004_notes"
        assert gateway.stop() == 0
    assert not {"service.failed", "library.warned"}.intersection(gateway.names())


def test_logs_are_followed_when_the_file_cannot_be_watched(shipped: Place) -> None:
    with shipped.serve() as gateway:
        gateway.wait_ready()
        command = [*NOTHING_TO_WATCH_WITH, *shipped.command, *shipped.options]
        follow = [*command, "logs", "--from", "file", "--follow", "--event", "service.stopping"]
        with subprocess.Popen(
            [*follow, "--json"],
            stdout=subprocess.PIPE,
            text=True,
            env=clean_environment(shipped.home),
        ) as following:
            assert following.stdout is not None
            gateway.stop()
            assert '"service.stopping"' in following.stdout.readline()
            following.terminate()
