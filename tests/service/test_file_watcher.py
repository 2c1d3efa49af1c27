"""Saved files are seen also where the kernel lets nothing be watched, and where folders come and go."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import anyio
import pytest
from watchfiles import Change, DefaultFilter

from local_mcp_gateway.log import ignore
from local_mcp_gateway.service.file_watcher import (
    WatchSpec,
    changes,
    changes_blocking,
    folder_state,
)
from tests.harness import DEADLINE_S, Place, clean_environment


def nothing_to_watch_with(limit: str) -> tuple[str, ...]:
    """Return a prefix of commands: a user namespace with a limit of its own, so that nobody else's is touched."""
    return (
        *("unshare", "--user", "--map-root-user", "sh", "-c"),
        f'echo 0 > /proc/sys/user/max_inotify_{limit} && exec "$@"',
        "sh",
    )


@pytest.fixture(params=["instances", "watches"])
def scarce(request: pytest.FixtureRequest) -> tuple[str, ...]:
    prefix = nothing_to_watch_with(request.param)
    done = subprocess.run([*prefix, "true"], check=False, capture_output=True)
    if done.returncode:
        pytest.skip(f"no user namespace here: {done.stderr.decode().strip()}")
    return prefix


def test_dev_mode_looks_for_saved_migrations_when_they_cannot_be_watched(
    shipped: Place, scarce: tuple[str, ...]
) -> None:
    with shipped.serve("--dev", prefix=scarce) as gateway:
        gateway.wait_for("dev.watching")
        told = gateway.wait_for("dev.polling")
        assert "cannot be watched with inotify and are polled instead" in told["message"]
        assert "max_user_instances" in told["hint"]
        gateway.wait_ready()
        shipped.folder.write("0104_notes", "CREATE TABLE notes (id INTEGER PRIMARY KEY);")
        assert gateway.wait_for("migration.hot_applied")["tag"] == "0104_notes"
        assert gateway.stop() == 0
    assert not {"service.failed", "library.warned"}.intersection(gateway.names())


def test_logs_are_followed_when_the_file_cannot_be_watched(
    shipped: Place, scarce: tuple[str, ...]
) -> None:
    with shipped.serve() as gateway:
        gateway.wait_ready()
        command = [*scarce, *shipped.command, *shipped.options]
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


SEES = """
import sys
from pathlib import Path
from threading import Thread
from watchfiles import DefaultFilter
from local_mcp_gateway.service import file_watcher
told = lambda event, **_: print(event, flush=True)
file_watcher.RETRY_INOTIFY_S = 0.5
def limits():
    sys.stdin.read()
    for name in ("instances", "watches"):
        Path(f"/proc/sys/user/max_inotify_{name}").write_text("1000")
Thread(target=limits, daemon=True).start()
for changed in file_watcher.changes_blocking(file_watcher.WatchSpec(Path(sys.argv[1]), DefaultFilter()), told):
    print(*(f"{change.name} {Path(path).name}" for change, path in sorted(changed)), flush=True)
"""


class Seeing:
    """A process that watches a folder and says what it sees."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        assert process.stdin is not None
        self._lines = process.stdout
        self._limits = process.stdin

    def give_back(self) -> None:
        """Let it watch from now on."""
        self._limits.close()

    def until(self, wanted: str) -> None:
        """Wait for a line; empty ones mean that nothing has changed."""
        for line in self._lines:
            if line.strip() == wanted:
                return
        raise AssertionError(f"ended without {wanted}")


@pytest.fixture
def seeing(tmp_path: Path, scarce: tuple[str, ...]) -> Iterator[Seeing]:
    (tmp_path / "a.sql").write_text("1")
    command = [*scarce, sys.executable, "-c", SEES, str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        end = threading.Timer(DEADLINE_S, process.kill)
        end.start()
        try:
            yield Seeing(process)
        finally:
            end.cancel()
            process.kill()


def test_looking_sees_every_save_of_one_second_and_of_one_size_and_time(
    tmp_path: Path, seeing: Seeing
) -> None:
    file = tmp_path / "a.sql"
    seeing.until("dev.polling")
    seeing.until("")
    before = file.stat()
    for number in range(5):  # several of them within a second
        file.write_text(str(number))
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        seeing.until("modified a.sql")


def test_what_was_used_up_is_tried_again_and_nothing_is_missed_on_the_way(
    tmp_path: Path, seeing: Seeing
) -> None:
    seeing.until("dev.polling")
    seeing.until("")
    seeing.give_back()
    (tmp_path / "b.sql").write_text("")
    seeing.until("added b.sql")
    seeing.until("dev.watching")
    (tmp_path / "a.sql").write_text("2")
    seeing.until("modified a.sql")


def test_a_folder_that_goes_and_comes_back_is_watched_on(tmp_path: Path) -> None:
    folder = tmp_path / "migrations"
    folder.mkdir()
    with closing(changes_blocking(WatchSpec(folder, DefaultFilter()), ignore)) as seen:
        assert next(seen) == set()
        for number in range(3):
            shutil.rmtree(folder)
            folder.mkdir()
            (folder / "a.sql").write_text(str(number))
            news(seen, "a.sql")
            (folder / "b.sql").write_text(str(number))
            news(seen, "b.sql")
        folder.rename(tmp_path / "aside")
        next(seen)
        (tmp_path / "aside").rename(folder)
        (folder / "c.sql").write_text("")
        news(seen, "c.sql")


async def test_nothing_wakes_the_event_loop_until_something_is_saved(tmp_path: Path) -> None:
    seen = changes(WatchSpec(tmp_path, DefaultFilter(), wake_ms=1), ignore)
    assert await anext(seen) == set()
    loop = asyncio.get_running_loop()
    loop.call_later(0.2, (tmp_path / "a.sql").write_text, "")  # after a few empty rounds
    assert {Path(path).name for _, path in await anext(seen)} == {"a.sql"}
    with anyio.CancelScope() as scope:
        loop.call_later(0.2, scope.cancel)
        await anext(seen)
    assert scope.cancelled_caught


def news(seen: Iterator[set[tuple[Change, str]]], name: str) -> None:
    """Wait until a file of this name is told to be there."""
    for changed in itertools.islice(seen, 1000):
        if any(
            Path(path).name == name and change is not Change.deleted for change, path in changed
        ):
            return
    raise AssertionError(name)


def test_a_text_that_is_changed_and_changed_back_is_another_state_of_the_folder(
    tmp_path: Path,
) -> None:
    file = tmp_path / "0000_one.sql"
    file.write_text("SELECT 1;")
    before = folder_state(tmp_path)
    assert folder_state(tmp_path) == before
    file.write_text("SELECT 2;")
    file.write_text("SELECT 1;")
    os.utime(file, ns=(0, before.files[0][2] + 1))  # the clock of a file may be slow
    assert folder_state(tmp_path) != before
